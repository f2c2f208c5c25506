"""Every route: what it is called, who may use it, what it takes and what it may answer."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from aiohttp import web
from pydantic import BaseModel

from gateway.core.rates import Tariff
from gateway.web import (
    a2a,
    activity,
    answers,
    backlog,
    calls,
    delegations,
    events,
    health,
    inbox,
    models,
    registry,
    relayed,
    sessions,
    sockets,
    tokens,
    workspaces,
)
from gateway.web.query import BACKLOG, HISTORY, INBOX, STALE, Schema

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Scope(Enum):
    """Who may use a route (wire.md 10). The operator may use all of them; in `dev` everybody on this machine is one."""

    EVERYBODY = "no credential is asked for"
    RUNTIME = "a workspace, for itself: the body names it, the service checks it; not the organisation"
    CALLER = "a workspace that may talk to the one in the path: the service checks it; the organisation"
    NEIGHBOUR = "a workspace that may talk to the one in the path; the organisation"
    PARTY = "the caller and the target of the call: the service checks it; the organisation"
    OWNER = "the workspace in the path itself; the organisation"
    VIEWER = "a workspace, for those it may talk to: the service decides; the organisation"
    ASKER = "a workspace, about itself and those it may talk to: the service decides; the organisation"
    MEMBER = "the organisation: by one of its tokens, or by session"
    OPERATOR = "the operator alone"
    TESTER = "whoever shows exactly the operator's token, where that is enabled"
    INSPECTOR = "the organisation, or anybody on this machine"


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """One row.

    `gives`: the type of its JSON answer, None where that is not ours to say. `refuses`: the statuses it may answer
    besides those that its scope, tariff, path and body imply, or with which any call may end. `a2a`: takes a call, by
    JSON-RPC, or by HTTP+JSON if `plain`: `{operation}` is a path of that binding (core/http_json.py). `stream`: answers
    with events of ours, `relays`: with those of an agent. `text`: answers with plain text, `html`: with a page.
    `confirm`: takes `?confirm=`, `search`: `?q=`; `query`: what else it takes there, with the schema of each. `tariff`:
    what a request counts as.
    """

    method: str
    path: str
    handler: Handler
    scope: Scope
    about: str
    status: int = 200
    body: type[BaseModel] | None = None
    gives: Any = None
    refuses: tuple[int, ...] = ()
    a2a: bool = False
    plain: bool = False
    stream: bool = False
    relays: bool = False
    text: bool = False
    html: bool = False
    confirm: bool = False
    search: bool = False
    query: Mapping[str, Schema] = field(default_factory=dict)
    tariff: Tariff = Tariff.REQUEST

    @property
    def rpc(self) -> bool:
        """Whether it takes a call by JSON-RPC."""
        return self.a2a and not self.plain

    @property
    def takes_body(self) -> bool:
        """Whether a request has a body."""
        return self.body is not None or (self.a2a and self.method == "POST")


S = Scope
T = Tariff
ROUTES: Final[tuple[Route, ...]] = (
    Route(
        method="GET", path="/healthz", handler=health.alive, tariff=T.FREE, scope=S.EVERYBODY,
        gives=answers.Alive, about="Is the process alive?",
    ),
    Route(
        method="GET", path="/health", handler=health.alive, tariff=T.FREE, scope=S.EVERYBODY,
        gives=answers.Alive, about="Is the process alive?",
    ),
    Route(
        method="GET", path="/readyz", handler=health.ready, tariff=T.FREE, scope=S.EVERYBODY, refuses=(503,),
        gives=answers.Ready, about="May calls be sent here?",
    ),
    Route(
        method="GET", path="/admin/liveness", handler=health.liveness, scope=S.OPERATOR, gives=answers.Liveness,
        about="How each loop of this process stands.",
    ),
    Route(
        method="GET", path="/metrics", handler=health.metrics, tariff=T.FREE, scope=S.INSPECTOR, text=True,
        about="The readings of this process, for Prometheus.",
    ),
    Route(
        method="GET", path="/openapi.json", handler=health.openapi, scope=S.INSPECTOR,
        about="These routes and their models.",
    ),
    Route(
        method="POST", path="/registry/register", handler=registry.register, scope=S.RUNTIME, refuses=(404, 410),
        tariff=T.STRICT, body=models.Register, gives=answers.Registered,
        about="An agent says where it listens and what it can do.",
    ),
    Route(
        method="POST", path="/registry/heartbeat", handler=registry.heartbeat, scope=S.RUNTIME, refuses=(404, 410),
        tariff=T.BEAT, body=models.Heartbeat, gives=answers.Alive, about="A sign of life.",
    ),
    Route(
        method="POST", path="/registry/update-card", handler=registry.update_card, scope=S.RUNTIME, refuses=(404, 410),
        body=models.UpdateCard, gives=answers.Updated, about="A new agent card.",
    ),
    Route(
        method="GET", path="/registry/discover/{workspace_id}", handler=registry.discover, scope=S.NEIGHBOUR,
        gives=answers.Discovered, refuses=(502,), about="Where a workspace's agent is called.",
    ),
    Route(
        method="GET", path="/registry/{workspace_id}/peers", handler=registry.peers, scope=S.NEIGHBOUR,
        gives=list[answers.Peer], refuses=(400,), search=True,
        about="The parent, children and siblings of a workspace, a thousand at most; `q` stands in their name or role.",
    ),
    Route(
        method="POST", path="/registry/check-access", handler=registry.check_access, scope=S.ASKER,
        body=models.CheckAccess, gives=answers.Access, about="May one workspace talk to another?",
    ),
    Route(
        method="POST", path="/workspaces", handler=workspaces.create, scope=S.MEMBER, status=201,
        body=models.CreateWorkspace, gives=answers.Created,
        about="Make a workspace; the answer shows its first token, once.",
    ),
    Route(
        method="GET", path="/workspaces", handler=workspaces.list_all, scope=S.MEMBER,
        gives=list[answers.Workspace], about="All workspaces that are not removed.",
    ),
    Route(
        method="GET", path="/workspaces/{workspace_id}", handler=workspaces.get, scope=S.NEIGHBOUR,
        gives=answers.Workspace, about="One workspace.",
    ),
    Route(
        method="PATCH", path="/workspaces/{workspace_id}", handler=workspaces.edit, scope=S.MEMBER,
        body=models.EditWorkspace, gives=answers.Edited, about="Change a workspace; what is not said stays as it is.",
    ),
    Route(
        method="DELETE", path="/workspaces/{workspace_id}", handler=workspaces.remove, scope=S.OPERATOR,
        gives=answers.Removed, refuses=(400, 409), confirm=True,
        about="Remove a workspace, its tokens, and with `confirm=true` all below it.",
    ),
    Route(
        method="POST", path="/workspaces/{workspace_id}/tokens", handler=tokens.mint, tariff=T.STRICT, scope=S.OWNER,
        status=201, gives=answers.Token, about="A new token of a workspace, shown once.",
    ),
    Route(
        method="GET", path="/workspaces/{workspace_id}/tokens", handler=tokens.list_live, scope=S.OWNER,
        gives=list[answers.LiveToken], about="The tokens of a workspace that may be used.",
    ),
    Route(
        method="DELETE", path="/workspaces/{workspace_id}/tokens/{token_id}", handler=tokens.revoke, scope=S.OWNER,
        gives=answers.Revoked, about="Revoke a token of a workspace.",
    ),
    Route(
        method="POST", path="/org/tokens", handler=tokens.mint_for_organisation, scope=S.OPERATOR, status=201,
        tariff=T.STRICT, body=models.MintToken, gives=answers.OrgToken,
        about="A new token of the organisation, shown once.",
    ),
    Route(
        method="GET", path="/org/tokens", handler=tokens.list_of_organisation, scope=S.OPERATOR,
        gives=list[answers.LiveToken], about="The organisation's tokens that may be used.",
    ),
    Route(
        method="DELETE", path="/org/tokens/{token_id}", handler=tokens.revoke_of_organisation, scope=S.OPERATOR,
        gives=answers.Revoked, refuses=(404,), about="Revoke a token of the organisation, and end what it opened.",
    ),
    Route(
        method="GET", path="/admin/workspaces/{workspace_id}/test-token", handler=tokens.mint_for_tests,
        scope=S.TESTER, gives=answers.Token, about="A token of a workspace, for tests.",
    ),
    Route(
        method="POST", path="/admin/workspaces/{workspace_id}/test-token", handler=tokens.mint_for_tests,
        scope=S.TESTER, gives=answers.Token, about="A token of a workspace, for tests.",
    ),
    Route(
        method="GET", path="/login", handler=sessions.page, scope=S.EVERYBODY, html=True,
        about="The page that the link of `a2a-gateway login` leads to.",
    ),
    Route(
        method="POST", path="/session", handler=sessions.open_one, tariff=T.STRICT, scope=S.EVERYBODY, status=201,
        body=models.Login, gives=answers.Session, refuses=(401, 403, 503),
        about="Open a browser's session with a token or a one-time code.",
    ),
    Route(
        method="GET", path="/session", handler=sessions.show, scope=S.MEMBER, gives=answers.Session,
        about="Who asks.",
    ),
    Route(
        method="DELETE", path="/session", handler=sessions.end, scope=S.MEMBER, gives=answers.Ended, refuses=(400,),
        about="End the session that asks.",
    ),
    Route(
        method="GET", path="/workspaces/{workspace_id}/budget", handler=workspaces.budget_of, scope=S.OWNER,
        gives=answers.Budget, about="What a workspace may spend in a month, and has spent in this one.",
    ),
    Route(
        method="PATCH", path="/workspaces/{workspace_id}/budget", handler=workspaces.set_budget, scope=S.OPERATOR,
        body=models.SetBudget, gives=answers.Budget, about="Change what a workspace may spend in a month.",
    ),
    Route(
        method="GET", path="/workspaces/{workspace_id}/metrics", handler=workspaces.usage, scope=S.OWNER,
        gives=answers.Usage, about="What a workspace has used today (UTC).",
    ),
    Route(
        method="GET", path="/workspaces/{workspace_id}/activity", handler=activity.show, scope=S.OWNER,
        gives=list[answers.Activity], refuses=(400,), query=HISTORY,
        about="What has happened in a workspace: the newest first; after the row `since_id` the oldest first.",
    ),
    Route(
        method="POST", path="/workspaces/{workspace_id}/activity", handler=activity.log, scope=S.OWNER,
        body=models.LogActivity, gives=answers.Logged, about="A line that an agent writes into its own history.",
    ),
    Route(
        method="POST", path="/workspaces/{workspace_id}/notify", handler=activity.notify, scope=S.OWNER,
        body=models.Notify, gives=answers.Sent, about="An agent tells people something, live and in its history.",
    ),
    Route(
        method="GET", path="/workspaces/{workspace_id}/inbox", handler=inbox.take, scope=S.OWNER,
        gives=answers.Messages, refuses=(400,), query=INBOX,
        about="The oldest messages for an agent that polls, under a lease; waits for one if there is none.",
    ),
    Route(
        method="POST", path="/workspaces/{workspace_id}/inbox/{call_id}/ack", handler=inbox.acknowledge, scope=S.OWNER,
        gives=answers.Settled, refuses=(409,), about="The agent has this message for good.",
    ),
    Route(
        method="POST", path="/workspaces/{workspace_id}/inbox/{call_id}/reply", handler=inbox.reply, scope=S.OWNER,
        body=models.Reply, gives=answers.Settled, refuses=(409,), about="The agent's answer to a message.",
    ),
    Route(
        method="POST", path="/workspaces/{workspace_id}/inbox/{call_id}/events", handler=inbox.progress, scope=S.OWNER,
        body=models.Progress, gives=answers.Settled, refuses=(409,),
        about="The agent still works on a message, or answers it with its final event.",
    ),
    Route(
        method="POST", path="/workspaces/{workspace_id}/delegate", handler=delegations.delegate, tariff=T.CALL,
        scope=S.OWNER, status=202, body=models.Delegate, gives=answers.Delegated, refuses=(402, 508),
        about="Leave a task to another workspace: it is sent, and its result told, though nobody waits for it.",
    ),
    Route(
        method="GET", path="/workspaces/{workspace_id}/delegations", handler=delegations.show, scope=S.OWNER,
        gives=list[answers.Delegation], about="What a workspace has delegated lately, the newest first.",
    ),
    Route(
        method="POST", path="/workspaces/{workspace_id}/delegations/record", handler=delegations.record, scope=S.OWNER,
        status=202, body=models.RecordDelegation, gives=answers.Recorded,
        about="A task that a workspace has sent to another one itself.",
    ),
    Route(
        method="POST", path="/workspaces/{workspace_id}/delegations/{delegation_id}/update",
        handler=delegations.update, scope=S.PARTY, body=models.UpdateDelegation, gives=answers.Reported,
        refuses=(409,), about="What the source or the target of a delegation says of how it stands.",
    ),
    Route(
        method="GET", path="/workspaces/{workspace_id}/events/stream", handler=events.stream_of_one, scope=S.OWNER,
        stream=True, refuses=(400,), about="What happens in a workspace, live, as server-sent events.",
    ),
    Route(
        method="GET", path="/events/stream", handler=events.stream_of_all, scope=S.VIEWER, stream=True,
        refuses=(400, 404, 410),
        about="What happens in all workspaces that the caller may see, or in those it names, live.",
    ),
    Route(
        method="GET", path="/ws", handler=sockets.socket, scope=S.VIEWER, status=101, refuses=(400, 404, 410),
        about="The same over a WebSocket.",
    ),
    Route(
        method="POST", path="/workspaces/{workspace_id}/a2a", handler=a2a.call, tariff=T.CALL, scope=S.CALLER, a2a=True,
        about="An A2A JSON-RPC call, forwarded to the workspace's agent.",
    ),
    Route(
        method="POST", path="/workspaces/{workspace_id}/a2a/", handler=a2a.call, scope=S.CALLER, a2a=True,
        tariff=T.CALL, about="The same, for clients that add a slash.",
    ),
    Route(
        method="GET", path="/workspaces/{workspace_id}/a2a/calls/{call_id}", handler=calls.show, scope=S.PARTY,
        gives=answers.Call, about="How a call stands, and its answer once there is one, if it has waited.",
    ),
    Route(
        method="GET", path="/workspaces/{workspace_id}/a2a/calls/{call_id}/stream", handler=relayed.follow,
        scope=S.PARTY, relays=True, refuses=(204, 400, 409),
        about="The stream of a call from the event on that Last-Event-ID names; 204: there is no more.",
    ),
    Route(
        method="POST", path="/workspaces/{workspace_id}/a2a/calls/{call_id}/cancel", handler=calls.cancel,
        scope=S.PARTY, gives=answers.Cancelled, refuses=(202, 409),
        about="Call off a call that waits, or that is sent; 202: the replica that has it was told.",
    ),
    Route(
        method="GET", path="/workspaces/{workspace_id}/a2a/queue/{call_id}", handler=calls.show_queued, scope=S.PARTY,
        gives=answers.Queued, about="How a call stands whose agent was busy, and its answer once there is one.",
    ),
    Route(
        method="GET", path="/workspaces/{workspace_id}/a2a/queue", handler=backlog.list_after, scope=S.OWNER,
        gives=answers.Backlog, refuses=(400,), query=BACKLOG,
        about="What waits for a busy agent and what is out of its queue, in the order of the queue.",
    ),
    Route(
        method="DELETE", path="/workspaces/{workspace_id}/a2a/queue", handler=backlog.drop_stale, scope=S.OWNER,
        gives=answers.Dropped, refuses=(400,), query=STALE,
        about="Drop what has waited for this workspace for too long: it ends as `expired`.",
    ),
    Route(
        method="GET", path="/workspaces/{workspace_id}/a2a/{operation}", handler=a2a.operate, scope=S.CALLER,
        tariff=T.CALL, a2a=True, plain=True, refuses=(400, 405),
        about="The same by HTTP+JSON: a task, tasks, its stream, its push notification configurations.",
    ),
    Route(
        method="POST", path="/workspaces/{workspace_id}/a2a/{operation}", handler=a2a.operate, scope=S.CALLER,
        tariff=T.CALL, a2a=True, plain=True, refuses=(405,),
        about="The same by HTTP+JSON: a message, to be answered at once or as a stream, and what is done to tasks.",
    ),
    Route(
        method="DELETE", path="/workspaces/{workspace_id}/a2a/{operation}", handler=a2a.operate, scope=S.CALLER,
        tariff=T.CALL, a2a=True, plain=True, refuses=(400, 405),
        about="The same by HTTP+JSON: a push notification configuration of a task is removed.",
    ),
    Route(
        method="POST", path="/admin/a2a-queue/drop-stale", handler=backlog.drop_all_stale, scope=S.OPERATOR,
        gives=answers.Dropped, refuses=(400,), query=STALE,
        about="Drop what has waited for whichever workspace for too long.",
    ),
)  # fmt: skip
"""The routes, in the order in which people read them."""
