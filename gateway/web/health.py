"""Is it alive, is it ready, and what can it do?"""

from dataclasses import asdict

from aiohttp import web

from gateway.web import answers, keys, render


async def alive(request: web.Request) -> web.Response:
    """Answer as long as the process turns."""
    return render.json(answers.Alive(status="ok"))


async def ready(request: web.Request) -> web.Response:
    """Answer 200 when calls may be sent here, else 503; either way with what is up and what is down."""
    report = await request.app[keys.READINESS].report()
    return render.json(asdict(report), status=200 if report.ready else 503)


async def liveness(request: web.Request) -> web.Response:
    """Show how each loop of this process stands."""
    loops = request.app[keys.LOOPS]
    shown = [
        answers.Loop(
            name=one.name,
            does=one.does,
            state=one.state,
            restarts=one.restarts,
            last_error=one.last_error,
            seconds_since_turn=round(one.silent_s, 1),
            hangs_after_seconds=one.hangs_s,
            shared=one.shared,
        )
        for one in loops.liveness()
    ]
    return render.json(answers.Liveness(loops=shown, tasks_died=loops.deaths))


async def metrics(request: web.Request) -> web.Response:
    """Show the readings of this process."""
    text = await request.app[keys.METRICS]()
    return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def openapi(request: web.Request) -> web.Response:
    """Show every route and its models."""
    return web.Response(body=request.app[keys.OPENAPI], headers={"Content-Type": "application/json"})
