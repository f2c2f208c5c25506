import pytest

from gateway.core.budget import Spend
from gateway.core.callers import Admin, Anonymous, Holder, Local, Stranger
from gateway.core.prices import MILLION
from gateway.core.refusals import Code, Refusal
from gateway.core.workspaces import Status, Workspace
from gateway.services.admission import Admission, bind
from gateway.services.directory import Directory
from tests.services.memory import Workspaces

PARENT, CHILD, COUSIN, OTHER, GONE, BROKE, BROKE_CHILD = (f"00000000-0000-4000-8000-00000000000{n}" for n in range(7))


def workspace(id_: str, parent_id: str | None = None, **fields: object) -> Workspace:
    return Workspace(**{"id": id_, "name": id_, "status": Status.ONLINE, "parent_id": parent_id, **fields})


@pytest.fixture
def store() -> Workspaces:
    return Workspaces(
        workspace(PARENT),
        workspace(CHILD, PARENT),
        workspace(OTHER),
        workspace(COUSIN, OTHER),
        workspace(GONE, status=Status.REMOVED),
        workspace(BROKE, budget_limit=100, spend=Spend(reported_cents=100)),
        workspace(BROKE_CHILD, PARENT, budget_limit=100, spend=Spend(priced=100 * MILLION)),
    )


@pytest.fixture
def admission(store) -> Admission:
    return Admission(Directory(store, ttl_s=30))


async def refusal(admission: Admission, principal, claimed, target_id) -> Code:
    with pytest.raises(Refusal) as refused:
        await admission.admit(principal, claimed, target_id, peer="192.0.2.1")
    return refused.value.code


@pytest.mark.parametrize(
    ("principal", "claimed", "caller_id"),
    [
        (Admin(), None, None),
        (Admin(), "", None),
        (Admin(), CHILD, CHILD),
        (Admin(), CHILD.upper(), CHILD),
        (Local(), None, None),
        (Local(), CHILD, CHILD),
        (Holder(workspace_id=CHILD), None, CHILD),
        (Holder(workspace_id=CHILD), "", CHILD),
        (Holder(workspace_id=CHILD), CHILD, CHILD),
        (Holder(workspace_id=CHILD), PARENT, Code.INVALID_CREDENTIAL),
        (Anonymous(), None, Code.CREDENTIAL_REQUIRED),
        (Anonymous(), CHILD, Code.CREDENTIAL_REQUIRED),
        (Stranger(), None, Code.INVALID_CREDENTIAL),
        (Stranger(), CHILD, Code.INVALID_CREDENTIAL),
        (Admin(), "not a uuid", Code.INVALID_REQUEST),
        (Holder(workspace_id=CHILD), "not a uuid", Code.INVALID_REQUEST),
    ],
)
def test_who_is_calling_follows_from_the_credential_and_the_header(principal, claimed, caller_id):
    if not isinstance(caller_id, Code):
        assert bind(principal, claimed) == caller_id
        return
    with pytest.raises(Refusal) as refused:
        bind(principal, claimed)
    assert refused.value.code is caller_id


@pytest.mark.parametrize(
    ("caller", "target", "may"),
    [
        (CHILD, CHILD, True),
        (CHILD, PARENT, True),
        (PARENT, CHILD, True),
        (PARENT, OTHER, True),
        (CHILD, BROKE_CHILD, True),
        (CHILD, COUSIN, False),
        (CHILD, OTHER, False),
        (PARENT, COUSIN, False),
        (PARENT, GONE, False),
        (GONE, PARENT, False),
        (PARENT, "nobody", False),
    ],
)
async def test_who_may_talk_to_whom_follows_from_the_hierarchy(admission, caller, target, may):
    assert await admission.may_talk(caller, target) is may


async def test_an_admitted_call_knows_its_target_and_its_caller(admission, store):
    browser = await admission.admit(Admin(), None, CHILD, peer="")
    assert (browser.target, browser.caller_id) == (store.rows[CHILD], None)
    agent = await admission.admit(Holder(workspace_id=PARENT), PARENT, CHILD, peer="")
    assert (agent.target, agent.caller_id) == (store.rows[CHILD], PARENT)


@pytest.mark.parametrize("prefix", ["webhook:", "system:", "channel:", "test:"])
async def test_a_forged_caller_is_refused_before_anybody_is_asked_anything(admission, store, prefix):
    assert await refusal(admission, Stranger(), f"{prefix}x", CHILD) is Code.FORGED_CALLER
    assert store.asked == []


@pytest.mark.parametrize(
    ("principal", "claimed", "target", "code"),
    [
        (Stranger(), None, "nobody", Code.INVALID_CREDENTIAL),
        (Anonymous(), None, GONE, Code.CREDENTIAL_REQUIRED),
        (Holder(workspace_id=CHILD), PARENT, COUSIN, Code.INVALID_CREDENTIAL),
        (Holder(workspace_id=CHILD), None, COUSIN, Code.CANNOT_COMMUNICATE),
        (Holder(workspace_id=COUSIN), None, BROKE_CHILD, Code.CANNOT_COMMUNICATE),
        (Holder(workspace_id=CHILD), None, "nobody", Code.CANNOT_COMMUNICATE),
        (Holder(workspace_id=CHILD), None, BROKE_CHILD, Code.BUDGET_EXCEEDED),
        (Admin(), CHILD, COUSIN, Code.CANNOT_COMMUNICATE),
        (Admin(), None, BROKE, Code.BUDGET_EXCEEDED),
        (Admin(), None, "nobody", Code.NOT_FOUND),
        (Admin(), None, GONE, Code.REMOVED),
    ],
)
async def test_of_several_reasons_to_refuse_the_first_in_order_is_told(admission, principal, claimed, target, code):
    assert await refusal(admission, principal, claimed, target) is code


async def test_a_workspace_may_call_itself_and_is_still_held_to_its_budget(admission):
    assert (await admission.admit(Holder(workspace_id=CHILD), None, CHILD, peer="")).caller_id == CHILD
    assert await refusal(admission, Holder(workspace_id=BROKE), None, BROKE) is Code.BUDGET_EXCEEDED


async def test_nobody_is_admitted_while_nobody_can_say(admission, store):
    store.away = True
    assert await refusal(admission, Admin(), None, CHILD) is Code.PLATFORM_UNAVAILABLE
