"""The Protocols through which services reach the world, and the values that cross them."""

from gateway.ports.activity import Activity, Filters, PastLine, UsageOfDay
from gateway.ports.calls import Calls, History, Message, NewCall, Same, Waiting
from gateway.ports.changes import Change, Changes
from gateway.ports.delegation import Delegations, NewDelegation, PastDelegation
from gateway.ports.dispatch import Begin, Clockwork, Dispatcher, Hold, Meter, NoRoom, Outbound, Sink
from gateway.ports.failures import LiveUnavailable, StoreConflict, StoreError, StoreTimeout, StoreUnavailable
from gateway.ports.feeds import DeclaredFeed, EventFeed, FeedListener, FeedReport, Feeds, FeedSource, GrantedFeed
from gateway.ports.gate import (
    Barred,
    Budget,
    Earlier,
    Entered,
    Entry,
    Gate,
    Kept,
    Leases,
    Left,
    Orphan,
    Stage,
    Travelling,
)
from gateway.ports.identity import LiveToken, OpenSession, Owner, Sessions, TokenHash, Tokens
from gateway.ports.instances import Dead, Instances
from gateway.ports.journal import Journal, Passage, StreamHead
from gateway.ports.liveness import Liveness, Silence, Wait
from gateway.ports.queue import Claimed, Claims, InLine, NewQueued, Outgoing, Placed, Queue, QueuedEnd
from gateway.ports.vault import Vault
from gateway.ports.workspaces import EDITABLE, Misplaced, Named, NewWorkspace, Workspaces

__all__ = [
    "EDITABLE",
    "Activity",
    "Barred",
    "Begin",
    "Budget",
    "Calls",
    "Change",
    "Changes",
    "Claimed",
    "Claims",
    "Clockwork",
    "Dead",
    "DeclaredFeed",
    "Delegations",
    "Dispatcher",
    "Earlier",
    "Entered",
    "Entry",
    "EventFeed",
    "FeedListener",
    "FeedReport",
    "FeedSource",
    "Feeds",
    "Filters",
    "Gate",
    "GrantedFeed",
    "History",
    "Hold",
    "InLine",
    "Instances",
    "Journal",
    "Kept",
    "Leases",
    "Left",
    "LiveToken",
    "LiveUnavailable",
    "Liveness",
    "Message",
    "Meter",
    "Misplaced",
    "Named",
    "NewCall",
    "NewDelegation",
    "NewQueued",
    "NewWorkspace",
    "NoRoom",
    "OpenSession",
    "Orphan",
    "Outbound",
    "Outgoing",
    "Owner",
    "Passage",
    "PastDelegation",
    "PastLine",
    "Placed",
    "Queue",
    "QueuedEnd",
    "Same",
    "Sessions",
    "Silence",
    "Sink",
    "Stage",
    "StoreConflict",
    "StoreError",
    "StoreTimeout",
    "StoreUnavailable",
    "StreamHead",
    "TokenHash",
    "Tokens",
    "Travelling",
    "UsageOfDay",
    "Vault",
    "Wait",
    "Waiting",
    "Workspaces",
]
