"""What this process knows of workspaces and callers, from whom it hears it, and who may ask."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.app.ground import Ground
from gateway.core.callers import Proof
from gateway.core.rates import Tariff
from gateway.services.activity import ActivityLog
from gateway.services.admission import Admission
from gateway.services.directory import Directory
from gateway.services.edits import Edits
from gateway.services.heartbeats import Heartbeats
from gateway.services.identity import Identity
from gateway.services.peers import Peers
from gateway.services.registry import Registry
from gateway.services.sessions import Sessions
from gateway.services.silence import Silences
from gateway.services.timeline import Timeline
from gateway.services.tokens import TokenService
from gateway.services.tolls import Tolls
from gateway.services.visibility import Visibility
from gateway.services.workspaces import WorkspaceService

WRITE_MARGIN_S: Final = 0.25
"""What a batch of heartbeats may take to be written, once it is due."""
ACTIVITY_CAPACITY: Final = 20_000
"""Activity rows that wait while PostgreSQL is away."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """Who is there, who asks, and how often; their signs of life and their history."""

    directory: Directory
    identity: Identity
    visibility: Visibility
    admission: Admission
    tolls: Tolls
    heartbeats: Heartbeats
    silences: Silences
    activity: ActivityLog
    registry: Registry
    workspaces: WorkspaceService
    edits: Edits
    peers: Peers
    tokens: TokenService
    sessions: Sessions
    timeline: Timeline

    def forget_token(self, hash_hex: str) -> None:
        """Ask for a token again where it is used next, and end what is read by it if it is good no more."""
        self.identity.forget_token(hash_hex)
        self.visibility.doubt(Proof.TOKEN, hash_hex)

    def forget_session(self, hash_hex: str) -> None:
        """The same, of a browser's session."""
        self.identity.forget_session(hash_hex)
        self.visibility.doubt(Proof.SESSION, hash_hex)


def known_by(ground: Ground, *, hears: Callable[[], bool]) -> Known:
    """Return what this process knows to begin with: nothing. `hears` says whether it hears all events."""
    settings, stores, bus = ground.settings, ground.stores, ground.bus
    directory = Directory(stores.workspaces, ttl_s=settings.cache_ttl_s)
    identity = Identity(
        stores.tokens,
        stores.sessions,
        admin_token=settings.admin_token,
        open_locally=ground.dev and settings.admin_token is None,
        ttl_s=settings.cache_ttl_s,
    )
    heartbeats = Heartbeats(stores.liveness, every_s=settings.write_every_s)
    activity = ActivityLog(
        stores.activity,
        bus,
        capacity=ACTIVITY_CAPACITY,
        every_s=settings.write_every_s,
        settled=ground.gate.let_go,
    )
    return Known(
        directory=directory,
        identity=identity,
        visibility=Visibility(directory, stores.workspaces, identity.is_good),
        admission=Admission(directory),
        tolls=Tolls(
            ground.gate,
            {
                Tariff.CALL: settings.call_rate,
                Tariff.BEAT: settings.beat_rate,
                Tariff.REQUEST: settings.request_rate,
                Tariff.STRICT: settings.strict_rate,
                Tariff.FAILURE: settings.failure_rate,
            },
        ),
        heartbeats=heartbeats,
        silences=Silences(heartbeats, stores.liveness, hears=hears, lag_s=settings.write_every_s + WRITE_MARGIN_S),
        activity=activity,
        registry=Registry(
            workspaces=stores.workspaces,
            tokens=stores.tokens,
            liveness=stores.liveness,
            directory=directory,
            heartbeats=heartbeats,
            bus=bus,
            vault=ground.vault,
            reach=ground.reach,
            tokenless=ground.dev or settings.allow_tokenless_register,
            self_created=ground.dev,
        ),
        workspaces=WorkspaceService(
            workspaces=stores.workspaces,
            activity=stores.activity,
            directory=directory,
            bus=bus,
            vault=ground.vault,
            reach=ground.reach,
        ),
        edits=Edits(workspaces=stores.workspaces, directory=directory, bus=bus, reach=ground.reach),
        peers=Peers(workspaces=stores.workspaces, directory=directory, reach=ground.reach),
        tokens=TokenService(tokens=stores.tokens, directory=directory, identity=identity, bus=bus),
        sessions=Sessions(stores.sessions, identity, bus, lasts_s=settings.session_s),
        timeline=Timeline(history=stores.activity, activity=activity, directory=directory, bus=bus),
    )
