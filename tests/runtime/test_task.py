"""runtime.task: a task ends once."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from runtime.task import State, Task

AT = datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=timezone(timedelta(hours=1)))


@pytest.fixture
def task(incoming):
    return Task.begun(incoming("do it"), title="doing", at=AT)


def test_a_begun_task_is_working_and_its_history_starts_with_the_message(task):
    shown = task.to_json()
    assert shown["status"] == {"state": "working", "timestamp": "2026-01-02T02:04:05.678Z"}
    assert [message["taskId"] for message in shown["history"]] == [task.id]
    assert (shown["kind"], shown["contextId"], shown["artifacts"]) == ("task", "c1", [])


def test_a_completed_task_has_its_answer_as_an_artifact(task):
    shown = task.ended(State.COMPLETED, text="done", at=datetime.now(UTC)).to_json()
    assert shown["artifacts"][0]["parts"] == [{"kind": "text", "text": "done"}]
    assert "message" not in shown["status"]


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELED])
def test_another_ending_explains_itself_in_the_status(task, state):
    shown = task.ended(state, text="why", at=AT).to_json()
    assert shown["status"]["state"] == state.value
    assert shown["status"]["message"]["parts"] == [{"kind": "text", "text": "why"}]
    assert shown["artifacts"] == []


@pytest.mark.parametrize("first", [State.COMPLETED, State.FAILED, State.CANCELED])
@pytest.mark.parametrize("second", list(State))
def test_an_ended_task_stays_as_it_ended(task, first, second):
    ended = task.ended(first, text="x", at=AT)
    with pytest.raises(ValueError, match="cannot go from"):
        ended.ended(second, text="y", at=AT)


def test_a_task_does_not_end_as_working(task):
    with pytest.raises(ValueError, match="cannot go from"):
        task.ended(State.WORKING, text="", at=AT)


@pytest.mark.parametrize(("length", "kept"), [(None, 1), (0, 0), (1, 1), (9, 1)])
def test_the_history_is_cut_to_its_last_messages(task, length, kept):
    assert len(task.to_json(history_length=length)["history"]) == kept


def test_what_was_said_is_the_artifact_until_the_answer_takes_its_place(task):
    working = task.telling("so far")
    ended = working.ended(State.COMPLETED, text="the answer", at=AT)
    shown = [one.to_json()["artifacts"] for one in (task, working, ended)]
    assert [[part["text"] for artifact in one for part in artifact["parts"]] for one in shown] == [
        [],
        ["so far"],
        ["the answer"],
    ]
    assert shown[1][0]["artifactId"] == shown[2][0]["artifactId"]


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELED])
def test_what_was_said_stays_when_there_is_no_answer(task, state):
    shown = task.telling("so far").ended(state, text="why", at=AT).to_json()
    assert shown["artifacts"][0]["parts"][0]["text"] == "so far"
