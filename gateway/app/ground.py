"""What everything else stands on: the settings' meaning, both datastores with their stores, and the bus."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from events import redis
from events.bus import Bus
from gateway.core.address import Reach
from gateway.live import gate
from gateway.live import journal as journals
from gateway.ports import Vault
from gateway.services.tasks import Tasks
from gateway.settings import Settings
from gateway.store import db, vault
from gateway.store.activity import ActivityStore
from gateway.store.calls import CallStore
from gateway.store.changes import ChangeStore
from gateway.store.db import Database
from gateway.store.delegation import DelegationClaims, DelegationStore
from gateway.store.feeds import FeedStore
from gateway.store.instances import InstanceStore
from gateway.store.liveness import LivenessStore
from gateway.store.queue import QueueStore
from gateway.store.sessions import SessionStore
from gateway.store.tokens import TokenStore
from gateway.store.workspaces import WorkspaceStore

BUS_CAPACITY: Final = 20_000
"""Events that wait while Redis is away ..."""
BUS_BYTES: Final = 64 * 1024 * 1024
"""... and what they may take."""
PROBES_A_RENEWAL: Final = 2.5
"""How often the lease in Redis is renewed, and looked for those of the dead, in probes of the bus."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stores:
    """What PostgreSQL keeps, a store for each noun."""

    activity: ActivityStore
    calls: CallStore
    changes: ChangeStore
    delegation_claims: DelegationClaims
    delegations: DelegationStore
    feeds: FeedStore
    instances: InstanceStore
    liveness: LivenessStore
    queue: QueueStore
    sessions: SessionStore
    tokens: TokenStore
    workspaces: WorkspaceStore


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """What was opened first and is closed last.

    dev: open to this machine without credentials, agents on private addresses, workspaces that create themselves.
    renew_s: seconds between two renewals of the lease in Redis.
    """

    settings: Settings
    dev: bool
    reach: Reach
    vault: Vault | None
    tasks: Tasks
    stores: Stores
    link: redis.RedisBus
    bus: Bus
    gate: gate.Gate
    journal: journals.Journal
    renew_s: float


@asynccontextmanager
async def open_ground(settings: Settings, *, dev: bool) -> AsyncIterator[Ground]:
    """Connect to both datastores; raises StoreUnavailable, ValueError for a malformed URL, and vault.BadKey."""
    if settings.database_url is None or settings.redis_url is None:
        raise ValueError("a gateway needs both its datastores")
    reach = Reach.SAME_NETWORK if dev or settings.allow_private_agents else Reach.HOSTED
    sealed = vault.from_file(settings.secrets_key_file) if settings.secrets_key_file is not None else None
    renew_s = settings.probe_s * PROBES_A_RENEWAL
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(Tasks())
        database = await stack.enter_async_context(
            db.opened(
                settings.database_url,
                pool_size=settings.pool_size,
                statement_timeout_s=settings.statement_timeout_s,
                spawn=tasks.spawn,
            )
        )
        link = await stack.enter_async_context(
            redis.opened(
                settings.redis_url,
                prefix=settings.redis_prefix,
                journal_length=settings.journal_length,
                whole_s=settings.whole_s,
                whole_bytes=settings.whole_bytes,
            )
        )
        turnstile = await stack.enter_async_context(
            gate.opened(
                settings.redis_url,
                replica=link.publisher,
                prefix=settings.redis_prefix,
                max_depth=settings.max_depth,
                answer_s=settings.admission_s,
                renew_s=renew_s,
                kept_s=settings.answer_kept_s,
            )
        )
        journal = await stack.enter_async_context(
            journals.opened(
                settings.redis_url,
                prefix=settings.redis_prefix,
                answer_s=settings.admission_s,
                kept_s=settings.stream_s,
                entries=settings.stream_events,
                limit_bytes=settings.stream_bytes,
            )
        )
        yield Ground(
            settings=settings,
            dev=dev,
            reach=replace(reach, ports=settings.agent_ports),
            vault=sealed,
            tasks=tasks,
            stores=_stores(database),
            link=link,
            bus=Bus(link, capacity=BUS_CAPACITY, capacity_bytes=BUS_BYTES),
            gate=turnstile,
            journal=journal,
            renew_s=renew_s,
        )


def _stores(database: Database) -> Stores:
    queue = QueueStore(database)
    return Stores(
        activity=ActivityStore(database),
        calls=CallStore(database),
        changes=ChangeStore(database),
        delegation_claims=DelegationClaims(database, queue),
        delegations=DelegationStore(database),
        feeds=FeedStore(database),
        instances=InstanceStore(database),
        liveness=LivenessStore(database),
        queue=queue,
        sessions=SessionStore(database),
        tokens=TokenStore(database),
        workspaces=WorkspaceStore(database),
    )
