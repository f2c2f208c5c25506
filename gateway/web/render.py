"""How answers look."""

from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from gateway.core.answers import JSON, Answer
from gateway.core.feeds import Feed
from gateway.core.refusals import Refusal
from gateway.core.workspaces import Workspace
from gateway.web import answers
from gateway.web.refusals import STATUS


def json(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return a JSON answer."""
    return web.Response(body=orjson.dumps(value), status=status, headers={"Content-Type": JSON, **(headers or {})})


def refusal(refused: Refusal) -> web.Response:
    """Return a refusal."""
    headers = {}
    if refused.retry_after_s is not None:
        headers["Retry-After"] = str(refused.retry_after_s)
    status = STATUS[refused.code]
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    response = json(refused.to_json(), status=status, headers=headers)
    if status in (408, 413):
        response.force_close()  # the rest of the body is not waited for
    return response


def answer(ended: Answer) -> web.Response:
    """Return the answer of a call."""
    return web.Response(body=ended.body, status=ended.status, headers=ended.headers)


def peer(one: Workspace) -> answers.Peer:
    """Return a workspace as those near it see it."""
    return {
        "id": one.id,
        "name": one.name,
        "role": one.role,
        "tier": one.tier,
        "status": one.status,
        "url": one.url,
        "parent_id": one.parent_id,
        "active_tasks": one.active_tasks,
        "agent_card": one.agent_card,
    }


def workspace(one: Workspace) -> answers.Workspace:
    """Return a workspace as everybody may see it who may see it."""
    return {
        "id": one.id,
        "name": one.name,
        "role": one.role,
        "tier": one.tier,
        "status": one.status,
        "agent_card": one.agent_card,
        "url": one.url,
        "parent_id": one.parent_id,
        "active_tasks": one.active_tasks,
        "max_concurrent_tasks": one.max_concurrent_tasks,
        "last_error_rate": one.error_rate,
        "last_sample_error": one.sample_error,
        "uptime_seconds": one.uptime_seconds,
        "runtime_state": one.runtime_state,
        "current_task": one.current_task,
        "runtime": one.runtime,
        "workspace_dir": one.workspace_dir,
        "delivery_mode": one.delivery_mode or "push",
        "x": one.x,
        "y": one.y,
        "collapsed": one.collapsed,
        "budget_limit": one.budget_limit,
        "monthly_spend": one.spend.cents,
        "last_heartbeat_at": one.last_heartbeat_at,
        "runtime_metadata": one.metadata.to_json(),
        "events_url": one.events_url,
        "feed": None if one.feed is None else _feed(one.feed),
    }


def _feed(one: Feed) -> answers.Feed:
    return {"state": one.state, "reason": one.reason, "since": one.since, "events": one.events}
