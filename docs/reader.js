// Reads an event stream with a bearer, which EventSource cannot send, and resumes where it was.
// urls: the stream's address, or one for each replica. onEvent gets each event once, in order. onGap: something is
// missing, read again at its `resync`. onState: {"state": "ok"} or "degraded". Ends when `signal` is aborted, or with an error
// when the gateway says that coming back is of no use.
const FINAL = [400, 401, 403, 404, 410], SILENCE_MS = 40_000;

export async function read({ urls, token, onEvent, onGap = () => {}, onState = () => {}, signal, last = null }) {
  let retry = 2000;
  const take = (block) => {
    const fields = {};
    for (const line of block.split("\n")) {
      const colon = line.indexOf(":");
      if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1).trimStart();
    }
    if (fields.retry) retry = Number(fields.retry);
    const data = fields.data && JSON.parse(fields.data);
    if (data) (fields.event === "gap" ? onGap : fields.event === "bus" ? onState : onEvent)(data);
    if (fields.id) last = fields.id; // after its event has been taken
  };
  for (let turn = 0; !signal?.aborted; turn++) {
    const silence = new AbortController();
    const stop = () => silence.abort();
    let timer = setTimeout(stop, SILENCE_MS);
    signal?.addEventListener("abort", stop, { once: true });
    try {
      const headers = { Authorization: `Bearer ${token}`, ...(last && { "Last-Event-ID": last }) };
      const answer = await fetch(urls[turn % urls.length], { headers, cache: "no-store", signal: silence.signal });
      if (FINAL.includes(answer.status)) throw Object.assign(new Error(`refused: ${answer.status}`), { final: true });
      const chunks = answer.ok ? answer.body.pipeThrough(new TextDecoderStream()).getReader() : null;
      for (let unread = "", chunk; chunks && !(chunk = await chunks.read()).done; ) {
        clearTimeout(timer);
        timer = setTimeout(stop, SILENCE_MS);
        const blocks = (unread + chunk.value).split("\n\n");
        unread = blocks.pop();
        blocks.forEach(take);
      }
    } catch (error) {
      if (error.final) throw error;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", stop);
    }
    if (!signal?.aborted) await new Promise((resume) => setTimeout(resume, retry * (0.5 + Math.random() / 2)));
  }
}
