"""Every setting: its name, unit and default. Nothing else reads the environment."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

import structlog

from gateway.core.clients import Network
from gateway.core.prices import Prices
from gateway.core.rates import Rate
from gateway.settings import kinds

log = structlog.get_logger("gateway.settings")

ADMIN_TOKEN_CHARS: Final = 16
"""The shortest admin token that `serve` starts with."""
ADMIN_TOKEN_VARIETY: Final = 6
"""How many different characters it has at least."""


class BadSetting(ValueError):
    """A setting's value cannot be used; the message names the setting, the value and what is accepted."""


def _setting(
    name: str,
    read: Callable[[str], Any],
    about: str,
    *,
    default: Any,
    unit: str = "",
    secret: bool = False,
    lenient: bool = False,
) -> Any:
    """Declare one setting. lenient: a bad value is logged and the default used, instead of refusing to start."""
    about_it = {"name": name, "read": read, "about": about, "unit": unit, "secret": secret, "lenient": lenient}
    return field(default=default, repr=not secret, metadata=about_it)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one process."""

    database_url: str | None = _setting(
        "GATEWAY_DATABASE_URL",
        kinds.text,
        "PostgreSQL 14+: `postgresql://user:password@host:5432/name`. `serve` needs it.",
        default=None,
        secret=True,
    )
    redis_url: str | None = _setting(
        "GATEWAY_REDIS_URL",
        kinds.text,
        "Redis 6.2+ or Valkey 7+: `redis://`, `rediss://`, `unix://` or `redis+sentinel://host:port[,host:port]/name`. "
        "`serve` needs it.",
        default=None,
        secret=True,
    )
    admin_token: str | None = _setting(
        "ADMIN_TOKEN",
        kinds.text,
        "The operator's bearer token, 16 characters or more, 6 different ones. "
        "`serve` needs it; `dev` is open without it.",
        default=None,
        secret=True,
    )
    secrets_key_file: Path | None = _setting(
        "GATEWAY_SECRETS_KEY_FILE",
        kinds.path,
        "A file (mode 0600) with the key that seals stored secrets; make one with `a2a-gateway secrets-key`. "
        "Without it no inbound secrets are minted and `agent_auth` is refused.",
        default=None,
    )
    allow_private_agents: bool = _setting(
        "GATEWAY_ALLOW_PRIVATE_AGENTS",
        kinds.flag,
        "Let agents live on loopback and private addresses. On in `dev`.",
        default=False,
    )
    agent_ports: tuple[range, ...] | None = _setting(
        "GATEWAY_AGENT_PORTS",
        kinds.port_ranges,
        "The ports at which agents may listen, such as `443,8000-8999`. Unset: 80, 443 and all from 1024 on but those "
        "of databases, brokers and cluster controls.",
        default=None,
    )
    allow_tokenless_register: bool = _setting(
        "GATEWAY_ALLOW_TOKENLESS_REGISTER",
        kinds.flag,
        "Let a workspace without a live token register, and give it its first one. On in `dev`; `serve` does so on a "
        "loopback address only.",
        default=False,
    )
    enable_test_tokens: bool = _setting(
        "GATEWAY_ENABLE_TEST_TOKENS",
        kinds.flag,
        "Give out tokens of workspaces at `/admin/workspaces/{id}/test-token`, to whoever shows ADMIN_TOKEN. "
        "On a loopback address only.",
        default=False,
    )
    session_s: float = _setting(
        "GATEWAY_SESSION_SECONDS", kinds.seconds, "How long a browser's session lasts.", default=43200.0, unit="s"
    )
    public_url: str | None = _setting(
        "GATEWAY_PUBLIC_URL",
        kinds.http_url,
        "How agents reach this gateway; shown in `connection`. Unset: as the request came.",
        default=None,
    )
    idle_timeout_s: float = _setting(
        "A2A_IDLE_TIMEOUT_SECONDS",
        kinds.seconds,
        "A call ends after this long without any sign of life of its agent.",
        default=300.0,
        unit="s",
        lenient=True,
    )
    first_byte_s: float | None = _setting(
        "A2A_FIRST_BYTE_SECONDS",
        kinds.seconds,
        "How long an agent may take to begin its answer, whatever signs of life it gives. Unset: as long as it likes.",
        default=None,
        unit="s",
    )
    ceiling_s: float = _setting(
        "A2A_CEILING_SECONDS",
        kinds.seconds,
        "The longest a workspace's call may take without an `X-Timeout`.",
        default=1800.0,
        unit="s",
    )
    max_timeout_s: float = _setting(
        "GATEWAY_MAX_TIMEOUT_S",
        kinds.seconds,
        "The longest a workspace's call may take, whatever its `X-Timeout`.",
        default=21600.0,
        unit="s",
    )
    connect_timeout_s: float = _setting(
        "A2A_CONNECT_TIMEOUT_SECONDS",
        kinds.seconds,
        "How long connecting to an agent may take.",
        default=10.0,
        unit="s",
    )
    probe_idle_s: int = _setting(
        "A2A_KEEPALIVE_IDLE_SECONDS",
        kinds.up_to(32767),
        "How long a connection to an agent may be silent before TCP asks whether the other end is there.",
        default=30,
        unit="s",
    )
    probe_every_s: int = _setting(
        "A2A_KEEPALIVE_INTERVAL_SECONDS", kinds.up_to(32767), "How often TCP asks then.", default=10, unit="s"
    )
    probe_count: int = _setting(
        "A2A_KEEPALIVE_PROBES",
        kinds.up_to(127),
        "After how many questions without an answer the connection is lost; what is sent and not acknowledged for as"
        " long as all of them take loses it, too.",
        default=3,
    )
    bus_lost_s: float = _setting(
        "A2A_BUS_LOST_SECONDS",
        kinds.seconds,
        "How long a silence may stay unconfirmed, the database being away, before its call ends.",
        default=900.0,
        unit="s",
    )
    stall_s: float | None = _setting(
        "A2A_STALL_TIMEOUT_SECONDS",
        kinds.seconds,
        "How long a stream may go on without an event, whatever else shows that its agent lives. Unset: as long as it "
        "likes.",
        default=None,
        unit="s",
    )
    comments_count: bool = _setting(
        "A2A_COMMENTS_COUNT",
        kinds.flag,
        "Whether comments in an agent's stream are signs of life.",
        default=True,
    )
    grace_s: float = _setting(
        "A2A_DISCONNECT_GRACE_SECONDS",
        kinds.seconds_or_zero,
        "How long a stream is kept whose caller has left and wants it ended then (`X-On-Disconnect: cancel`).",
        default=0.0,
        unit="s",
    )
    event_bytes: int = _setting(
        "A2A_MAX_EVENT_BYTES",
        kinds.count,
        "The longest event of an agent's stream.",
        default=10 * 1024 * 1024,
        unit="bytes",
    )
    stream_kept_bytes: int = _setting(
        "A2A_STREAM_KEPT_BYTES",
        kinds.count,
        "What this process keeps of each stream that it relays; readers that are further behind read its journal.",
        default=256 * 1024,
        unit="bytes",
    )
    streams_kept_bytes: int = _setting(
        "A2A_STREAMS_KEPT_BYTES",
        kinds.count,
        "What it keeps of all streams together; past it only the newest event of each.",
        default=128 * 1024 * 1024,
        unit="bytes",
    )
    stream_events: int = _setting(
        "A2A_JOURNAL_EVENTS",
        kinds.count,
        "Events that the journal of a stream keeps in Redis: the newest.",
        default=20000,
        unit="events",
    )
    stream_bytes: int = _setting(
        "A2A_JOURNAL_BYTES",
        kinds.count,
        "What they may take, and what this process keeps of a stream for its readers while Redis is away.",
        default=16 * 1024 * 1024,
        unit="bytes",
    )
    stream_s: float = _setting(
        "A2A_JOURNAL_SECONDS",
        kinds.seconds,
        "How long the journal of a stream is kept after its end.",
        default=900.0,
        unit="s",
    )
    max_calls: int = _setting(
        "GATEWAY_MAX_CALLS",
        kinds.count,
        "Calls in flight in this process; past it callers get 503 `overloaded`.",
        default=5000,
        unit="calls",
    )
    inbox_ttl_s: float = _setting(
        "GATEWAY_INBOX_TTL_SECONDS",
        kinds.seconds,
        "The longest a call waits for an agent that polls, whatever its `expires_in_seconds`.",
        default=604800.0,
        unit="s",
    )
    inbox_messages: int = _setting(
        "GATEWAY_INBOX_MESSAGES",
        kinds.count,
        "Calls that wait for one agent that polls; past it callers get 503 `inbox_full`.",
        default=10000,
        unit="calls",
    )
    inbox_lease_s: float = _setting(
        "GATEWAY_INBOX_LEASE_SECONDS",
        kinds.seconds,
        "How long a message that was handed out is nobody else's; an event about it begins the time anew.",
        default=60.0,
        unit="s",
    )
    inbox_wait_s: float = _setting(
        "GATEWAY_INBOX_WAIT_SECONDS",
        kinds.seconds,
        "The longest an agent may wait for a message, whatever its `wait`.",
        default=60.0,
        unit="s",
    )
    prefer_wait_s: float = _setting(
        "GATEWAY_PREFER_WAIT_SECONDS",
        kinds.seconds,
        "The longest a caller may stay for the answer to a call that waits, whatever its `Prefer: wait`.",
        default=300.0,
        unit="s",
    )
    queue_ttl_s: float = _setting(
        "GATEWAY_QUEUE_TTL_SECONDS",
        kinds.seconds,
        "The longest a call waits for a busy agent, whatever its `expires_in_seconds`.",
        default=86400.0,
        unit="s",
    )
    queue_calls: int = _setting(
        "GATEWAY_QUEUE_CALLS",
        kinds.count,
        "Calls that wait for one busy agent; past it callers get 503 `agent_busy`.",
        default=10000,
        unit="calls",
    )
    queue_retry_s: float = _setting(
        "GATEWAY_QUEUE_RETRY_SECONDS",
        kinds.seconds,
        "When a busy agent is tried again that says nothing meanwhile, roughly; then ever later, up to 32 times that.",
        default=1.0,
        unit="s",
    )
    queue_every_s: float = _setting(
        "GATEWAY_QUEUE_EVERY_SECONDS",
        kinds.seconds,
        "How often it is looked which calls of the queue are due.",
        default=1.0,
        unit="s",
    )
    queue_lease_s: float = _setting(
        "GATEWAY_QUEUE_LEASE_SECONDS",
        kinds.seconds,
        "How long after a process's death the calls it had out of the queue are taken up, or end as `interrupted`.",
        default=30.0,
        unit="s",
    )
    queue_stale_s: float | None = _setting(
        "GATEWAY_QUEUE_STALE_SECONDS",
        kinds.seconds,
        "Calls that have waited for so long are dropped as `expired`, whatever they were promised. Unset: none.",
        default=None,
        unit="s",
    )
    delegation_s: float = _setting(
        "A2A_DELEGATION_SECONDS",
        kinds.seconds,
        "The longest that the agent of a delegated task may take, once it has got it.",
        default=1800.0,
        unit="s",
    )
    delegation_retry_s: float = _setting(
        "A2A_DELEGATION_RETRY_SECONDS",
        kinds.seconds,
        "When a delegated task is sent again, once, whose agent was dead and is started anew.",
        default=8.0,
        unit="s",
    )
    expiry_every_s: float = _setting(
        "GATEWAY_EXPIRY_EVERY_SECONDS",
        kinds.seconds,
        "How often calls are looked for whose time is over.",
        default=5.0,
        unit="s",
    )
    calls_kept_s: float = _setting(
        "GATEWAY_CALLS_KEPT_SECONDS",
        kinds.seconds,
        "How long calls that have ended can be asked for.",
        default=30 * 86_400.0,
        unit="s",
    )
    max_calls_each: int = _setting(
        "GATEWAY_MAX_CALLS_EACH",
        kinds.count,
        "Those of one workspace, organisation's token or session among them.",
        default=2500,
        unit="calls",
    )
    answer_kept_s: float = _setting(
        "GATEWAY_ANSWER_SECONDS",
        kinds.seconds,
        "How long who sends a message with the same `messageId` again gets the answer of the call that has ended.",
        default=900.0,
        unit="s",
    )
    answer_kept_bytes: int = _setting(
        "GATEWAY_ANSWER_BYTES",
        kinds.count,
        "The largest answer that is kept for that; of larger ones 409 `already_completed` tells.",
        default=262144,
        unit="bytes",
    )
    answers_kept_bytes: int = _setting(
        "GATEWAY_ANSWERS_BYTES",
        kinds.count,
        "What all answers that this process keeps for that may take in Redis.",
        default=268435456,
        unit="bytes",
    )
    max_feeds: int = _setting(
        "GATEWAY_MAX_FEEDS",
        kinds.count,
        "Feeds (agents' own events) that this process reads at once; what is past it waits for another replica.",
        default=1000,
        unit="feeds",
    )
    feeds_pinned: bool = _setting(
        "GATEWAY_FEEDS_PINNED",
        kinds.flag,
        "Read every feed always. Unset: while a call to its agent is in flight, or somebody reads its events.",
        default=False,
    )
    feed_linger_s: float = _setting(
        "GATEWAY_FEED_LINGER_SECONDS",
        kinds.seconds_from(3),
        "How long a feed is read on, roughly, when nobody wants it any more; 3 at least.",
        default=30.0,
        unit="s",
    )
    feed_lease_s: float = _setting(
        "GATEWAY_FEED_LEASE_SECONDS",
        kinds.seconds_from(2),
        "How long after a process's death another one takes its feeds up; 2 at least.",
        default=10.0,
        unit="s",
    )
    feed_first_byte_s: float = _setting(
        "GATEWAY_FEED_FIRST_BYTE_SECONDS",
        kinds.seconds,
        "How long an agent may take to begin its feed, connecting included.",
        default=20.0,
        unit="s",
    )
    feed_heartbeat_s: float = _setting(
        "GATEWAY_FEED_HEARTBEAT_SECONDS",
        kinds.seconds,
        "How often something is expected of a feed, if only a comment; three of these without a byte, and it is "
        "connected to anew.",
        default=15.0,
        unit="s",
    )
    feed_healthy_s: float = _setting(
        "GATEWAY_FEED_HEALTHY_SECONDS",
        kinds.seconds,
        "A feed that has lasted for so long, or has brought an event, counts as one that has never failed.",
        default=10.0,
        unit="s",
    )
    feed_pace_s: float = _setting(
        "GATEWAY_FEED_PACE_SECONDS",
        kinds.seconds,
        "A feed that its agent ends is connected to anew at once, but no more often than so, but for three times.",
        default=1.0,
        unit="s",
    )
    feed_gave_up_s: float = _setting(
        "GATEWAY_FEED_GAVE_UP_SECONDS",
        kinds.seconds,
        "When a feed is tried again that was given up (204, 401, 403, 404, 410, or an unsafe url), if it is not "
        "declared anew before.",
        default=3600.0,
        unit="s",
    )
    feed_event_bytes: int = _setting(
        "GATEWAY_FEED_EVENT_BYTES",
        kinds.count,
        "The largest event of a feed; larger ones are dropped and counted.",
        default=262144,
        unit="bytes",
    )
    feed_per_s: int = _setting(
        "GATEWAY_FEED_EVENTS_PER_SECOND",
        kinds.count,
        "Events of one feed that are told on, on average; one that brings more is read more slowly.",
        default=100,
        unit="events/s",
    )
    feed_keeps: frozenset[str] = _setting(
        "GATEWAY_FEED_TYPES",
        kinds.kept_types,
        "What agents may tell in our own words: `AGENT_MESSAGE`, `TASK_UPDATED`, comma separated. Unset: all of "
        "theirs is `AGENT_EVENT`.",
        default=frozenset(),
    )
    max_readers: int = _setting(
        "GATEWAY_MAX_READERS",
        kinds.count,
        "Event streams and sockets open in this process, together; past it readers are asked to come back.",
        default=20000,
        unit="readers",
    )
    max_depth: int = _setting(
        "A2A_MAX_DEPTH",
        kinds.count,
        "The most calls that may wait for one another; past it 508 `too_deep`.",
        default=16,
        unit="calls",
    )
    prices: Prices = _setting(
        "GATEWAY_PRICES",
        kinds.prices,
        "What tokens cost: `MODEL=IN/OUT` in cents a million tokens, comma separated, `*` for any other model. Unset: "
        "only what workspaces report themselves counts as spent.",
        default=Prices(),
    )
    reserve_cents: int = _setting(
        "GATEWAY_CALL_RESERVE_CENTS",
        kinds.amount,
        "What a call under way holds of a budget, at least: as much as calls of that workspace have cost, if that is "
        "more.",
        default=1,
        unit="cents",
    )
    call_rate: Rate | None = _setting(
        "GATEWAY_RATE_CALLS",
        kinds.rate,
        "Calls of one credential: so many in so many seconds, on all replicas together. `off`: as many as it likes.",
        default=Rate(requests=6000, period_s=60.0),
    )
    beat_rate: Rate | None = _setting(
        "GATEWAY_RATE_HEARTBEATS",
        kinds.rate,
        "The same for heartbeats.",
        default=Rate(requests=600, period_s=60.0),
    )
    request_rate: Rate | None = _setting(
        "GATEWAY_RATE_REQUESTS",
        kinds.rate,
        "The same for all other requests; of one address where there is no credential.",
        default=Rate(requests=3000, period_s=60.0),
    )
    strict_rate: Rate | None = _setting(
        "GATEWAY_RATE_STRICT",
        kinds.rate,
        "The same for registering, making tokens and opening sessions (the operator counts as for other requests).",
        default=Rate(requests=60, period_s=60.0),
    )
    failure_rate: Rate | None = _setting(
        "GATEWAY_RATE_FAILURES",
        kinds.rate,
        "Requests without a good credential, of one address; past it only those that were good here before are looked "
        "up.",
        default=Rate(requests=120, period_s=60.0),
    )
    admission_s: float = _setting(
        "GATEWAY_ADMISSION_SECONDS",
        kinds.seconds,
        "How long Redis may take to say whether a request may go on; afterwards they go on unchecked until it answers.",
        default=0.5,
        unit="s",
    )
    trusted_proxies: tuple[Network, ...] = _setting(
        "GATEWAY_TRUSTED_PROXIES",
        kinds.networks,
        "The proxies whose `X-Forwarded-For` is believed: addresses or networks, comma separated.",
        default=(),
    )
    max_request_bytes: int = _setting(
        "A2A_MAX_REQUEST_BYTES", kinds.count, "The largest request body.", default=1024 * 1024, unit="bytes"
    )
    max_response_bytes: int = _setting(
        "A2A_MAX_RESPONSE_BYTES", kinds.count, "The largest answer of an agent.", default=10 * 1024 * 1024, unit="bytes"
    )
    body_timeout_s: float = _setting(
        "GATEWAY_BODY_TIMEOUT_SECONDS",
        kinds.seconds,
        "How long a request's body may take to arrive.",
        default=30.0,
        unit="s",
    )
    body_pace: int = _setting(
        "GATEWAY_MIN_BYTES_PER_SECOND",
        kinds.count,
        "The slowest that a request's body may come, on average, once it has had 3 s.",
        default=500,
        unit="bytes/s",
    )
    write_timeout_s: float = _setting(
        "GATEWAY_WRITE_TIMEOUT_SECONDS",
        kinds.seconds,
        "How long a client may take to read an answer; then its connection is cut.",
        default=60.0,
        unit="s",
    )
    buffer_bytes: int = _setting(
        "GATEWAY_BUFFER_BYTES",
        kinds.count,
        "What the bodies of requests and answers may take in this process together, roughly; past it callers get 503 "
        "`overloaded`. Requests may fill half of it.",
        default=256 * 1024 * 1024,
        unit="bytes",
    )
    max_connections: int | None = _setting(
        "GATEWAY_MAX_CONNECTIONS",
        kinds.count,
        "Clients connected to this process; past it they get 503 `overloaded`. Unset: as many as may be open of files, "
        "but for those that calls to agents need.",
        default=None,
        unit="connections",
    )
    header_timeout_s: float = _setting(
        "GATEWAY_HEADER_TIMEOUT_SECONDS",
        kinds.seconds,
        "How long a new client may take to send the head of its first request.",
        default=15.0,
        unit="s",
    )
    drain_s: float = _setting(
        "GATEWAY_DRAIN_SECONDS",
        kinds.seconds,
        "How long calls in flight may go on after SIGTERM.",
        default=30.0,
        unit="s",
    )
    pool_size: int = _setting(
        "GATEWAY_DATABASE_POOL",
        kinds.count,
        "Connections to PostgreSQL of this process.",
        default=8,
        unit="connections",
    )
    statement_timeout_s: float = _setting(
        "GATEWAY_STATEMENT_TIMEOUT_SECONDS",
        kinds.seconds,
        "How long one SQL statement may take.",
        default=5.0,
        unit="s",
    )
    write_every_s: float = _setting(
        "GATEWAY_WRITE_EVERY_SECONDS",
        kinds.seconds,
        "How long heartbeats and activity rows are gathered before one statement writes them.",
        default=0.5,
        unit="s",
    )
    cache_ttl_s: float = _setting(
        "GATEWAY_CACHE_TTL_SECONDS",
        kinds.seconds,
        "How long workspaces and tokens are believed when no change of them is heard of.",
        default=30.0,
        unit="s",
    )
    changes_every_s: float = _setting(
        "GATEWAY_CHANGES_EVERY_SECONDS",
        kinds.seconds,
        "How often the list of changes is read, if nothing wakes its reader before.",
        default=1.0,
        unit="s",
    )
    redis_prefix: str = _setting(
        "GATEWAY_REDIS_PREFIX", kinds.prefix, "What all keys and channels in Redis begin with.", default="gw:{bus}"
    )
    journal_length: int = _setting(
        "GATEWAY_JOURNAL_LENGTH",
        kinds.count,
        "Events kept for readers that come back, roughly.",
        default=20000,
        unit="events",
    )
    ring_bytes: int = _setting(
        "GATEWAY_RING_BYTES",
        kinds.count,
        "What the events held in this process for its readers may take, roughly; and as much again for large ones.",
        default=64 * 1024 * 1024,
        unit="bytes",
    )
    whole_s: float = _setting(
        "GATEWAY_LARGE_EVENT_SECONDS",
        kinds.seconds,
        "How long Redis keeps the whole of an event that is larger than 64 KiB; afterwards readers get it cut short.",
        default=900.0,
        unit="s",
    )
    whole_bytes: int = _setting(
        "GATEWAY_LARGE_EVENT_BYTES",
        kinds.count,
        "What all of them may take in Redis together; the oldest go first.",
        default=256 * 1024 * 1024,
        unit="bytes",
    )
    probe_s: float = _setting(
        "GATEWAY_PROBE_SECONDS",
        kinds.seconds,
        "How often the bus is probed; a process that misses two probes counts itself as blind.",
        default=2.0,
        unit="s",
    )
    keepalive_s: float = _setting(
        "GATEWAY_SSE_KEEPALIVE_SECONDS",
        kinds.seconds,
        "How long an event stream may be silent before a comment is sent.",
        default=15.0,
        unit="s",
    )
    reader_drain_s: float = _setting(
        "GATEWAY_READER_DRAIN_SECONDS",
        kinds.seconds,
        "How long a reader of events may take nothing of what waits for it; then it is let go, and may come back.",
        default=30.0,
        unit="s",
    )
    reader_spread_s: float = _setting(
        "GATEWAY_READER_SPREAD_SECONDS",
        kinds.seconds,
        "Over how long open event streams are ended after SIGTERM, so that not all readers come back at once.",
        default=3.0,
        unit="s",
    )
    cors_origins: tuple[str, ...] = _setting(
        "GATEWAY_CORS_ORIGINS",
        kinds.origins,
        "The sites whose pages may ask from browsers, comma separated.",
        default=("http://localhost:3000", "http://localhost:3001"),
    )
    log_format: str = _setting("GATEWAY_LOG_FORMAT", kinds.log_format, "`text` or `json`, on stderr.", default="text")
    heartbeat_s: float = _setting(
        "A2A_HEARTBEAT_SECONDS", kinds.seconds, "How often the demo agent of `dev` heartbeats.", default=30.0, unit="s"
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """Read them; raises BadSetting for a value that cannot be used. An empty value counts as not set."""
        values: dict[str, Any] = {}
        for setting in fields(cls):
            about = setting.metadata
            raw = environ.get(about["name"], "")
            if raw == "":
                continue
            try:
                values[setting.name] = about["read"](raw)
            except ValueError as error:
                shown = "(hidden)" if about["secret"] else repr(raw)
                if not about["lenient"]:
                    raise BadSetting(f"{about['name']}={shown} cannot be used: it must be {error}") from None
                log.warning(
                    "bad_setting",
                    name=about["name"],
                    value="(hidden)" if about["secret"] else raw,
                    accepted=str(error),
                    used=setting.default,
                )
        return cls(**values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Described:
    """A setting as people read of it."""

    name: str
    unit: str
    default: str
    about: str


def describe() -> list[Described]:
    """Return every setting, for `--help` and the README."""
    described = []
    for setting in fields(Settings):
        about = setting.metadata
        assert setting.default is not MISSING
        described.append(
            Described(name=about["name"], unit=about["unit"], default=_shown(setting.default), about=about["about"])
        )
    return described


def _shown(default: Any) -> str:
    match default:
        case None:
            return ""
        case bool():
            return "1" if default else "0"
        case float():
            return f"{default:.0f}" if default.is_integer() else f"{default:g}"
        case tuple() | frozenset():
            return ",".join(map(str, default))
        case _:
            return str(default)
