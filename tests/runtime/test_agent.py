"""runtime.agent: a card, and turns that may become tasks."""

import asyncio

import pytest

from runtime.agent import Agent, Skill, Turn


async def silent(turn):
    return ""


def test_the_card_has_every_field_that_the_specification_requires():
    card = Agent(name="n", description="d", answer=silent).card("http://a/")
    required = {
        "protocolVersion", "name", "description", "url", "version", "capabilities", "defaultInputModes",
        "defaultOutputModes", "skills",
    }  # fmt: skip
    assert required <= card.keys()
    assert card["url"] == "http://a/"
    assert card["capabilities"]["streaming"] is True
    assert [set(skill) for skill in card["skills"]] == [{"id", "name", "description", "tags", "examples"}]


def test_named_skills_replace_the_default_one():
    skills = (Skill(id="a", name="A", description="a"), Skill(id="b", name="B", description="b", tags=("t",)))
    card = Agent(name="n", description="d", answer=silent, skills=skills).card("http://a/")
    assert [(skill["id"], skill["tags"]) for skill in card["skills"]] == [("a", []), ("b", ["t"])]


async def test_a_turn_becomes_a_task_once_and_its_title_is_bounded(incoming):
    begun = []
    turn = Turn(incoming("hi"), on_begin=begun.append)
    assert (turn.text, turn.context_id, turn.task) == ("hi", "c1", None)
    assert turn.begin_task("t" * 500) == turn.task.id
    assert len(turn.task.title) == 200
    assert begun == [turn]
    with pytest.raises(RuntimeError, match="has its task"):
        turn.begin_task("again")


async def test_a_title_that_no_json_can_hold_is_made_one_that_it_can(incoming):
    turn = Turn(incoming("hi"), on_begin=lambda turn: None)
    turn.begin_task("a\ud800b")
    assert turn.task.title == "a?b"


async def test_a_turn_that_is_over_begins_no_task(incoming):
    turn = Turn(incoming("hi"), on_begin=lambda turn: None)
    turn.reply.set_result({})
    with pytest.raises(RuntimeError, match="over"):
        turn.begin_task("late")


async def test_what_a_turn_says_is_shown_with_its_task(incoming):
    turn = Turn(incoming("hi"), on_begin=lambda turn: None)
    await turn.say("a")
    with pytest.raises(ValueError, match="no task"):
        turn.shown()
    turn.begin_task("t")
    await turn.say("b")
    assert turn.shown().text == "ab"
    assert turn.task.text == ""


async def test_readers_have_their_turn_between_pieces_though_the_agent_never_waits(incoming, tasks):
    turn = Turn(incoming("hi"), on_begin=lambda turn: None)
    seen = []

    async def read():
        while await turn.said.moved(None):
            seen.append(turn.said.text())

    tasks.spawn(read(), name="reader")
    await asyncio.sleep(0)
    for piece in "abc":
        await turn.say(piece)
    assert seen == ["a", "ab", "abc"]
