"""What a caller of the bare protocol hears: exactly one final reply, whatever it sent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.raw import Raw

from .conftest import LIMITS, Agents, Nas, eventually

MAP = {"action": "map_zvol", "zvol": "one-1", "remotehost": "node1", "size": "36"}


@pytest.fixture
def raw(urls: dict[str, str]) -> Iterator[Raw]:
    with Raw(urls["frontend"]) as caller:
        yield caller


@pytest.mark.parametrize(
    ("body", "action", "says"),
    [
        (b"map it, please", None, "not JSON"),
        (b"\xff\xfe", None, "not JSON"),
        (b"", None, "not JSON"),
        (b"[" * 100_000, None, "not JSON"),
        (b"[1, 2]", None, "no JSON object"),
        (b"null", None, "no JSON object"),
        ({}, None, "no action"),
        ({"action": None}, None, "no action"),
        ({"action": ["map_zvol"]}, None, "no action"),
        ({"action": "fly"}, None, "action_unsupported"),
        ({"action": "set_zvol", "target": "iqn.x", "nas": "nas1"}, "zvol_attached", "action_unsupported"),
        ({"action": "map_zvol"}, "zvol_mapped", "zvol"),
        ({"action": "map_zvol", "zvol": "one-1"}, "zvol_mapped", "remotehost"),
        (MAP | {"zvol": 7}, "zvol_mapped", "zvol"),
        (MAP | {"size": {"GiB": 1}}, "zvol_mapped", "size"),
        (MAP | {"needs": ["telepathy"]}, "zvol_mapped", "upgrade"),
        (MAP | {"finish_within": "soon"}, "zvol_mapped", "finish_within"),
    ],
)
async def test_a_message_that_is_no_request_gets_one_reply_that_says_why(
    agents: Agents, raw: Raw, body: Any, action: str | None, says: str
):
    await agents.agent(nas := Nas())

    replies = await asyncio.to_thread(raw.ask, "nas1", body, message_id="m-1")

    [(properties, reply)] = replies
    assert reply["status"] == "error"
    assert reply["code"] == "protocol"
    assert says in reply["error"]
    assert reply["action"] == action
    assert properties.correlation_id == "m-1"
    assert nas.done == []


async def test_the_seeds_request_gets_the_seeds_reply_once(agents: Agents, raw: Raw):
    await agents.agent(nas := Nas())

    replies = await asyncio.to_thread(raw.ask, "nas1", MAP, message_id="m-2")

    [(properties, reply)] = replies
    assert reply["action"] == "zvol_mapped"
    assert reply["status"] == "success"
    assert reply["bdev"] == "/dev/loop0"
    assert properties.correlation_id == "m-2"
    assert properties.user_id == "nas.nas1"
    assert properties.content_type == "application/json"
    assert nas.callers == [None]


async def test_a_request_without_a_message_id_is_answered_too(agents: Agents, raw: Raw):
    await agents.agent(nas := Nas())

    replies = await asyncio.to_thread(raw.ask, "nas1", MAP, message_id=None)

    assert [reply["status"] for _, reply in replies] == ["success"]
    assert replies[0][0].correlation_id is None
    assert nas.done == ["one-1"]


async def test_a_request_without_a_reply_to_is_done_and_the_agent_goes_on(agents: Agents, raw: Raw):
    await agents.agent(nas := Nas())

    nothing = await asyncio.to_thread(raw.ask, "nas1", MAP, reply_to=False, wait_s=0.5)
    broken = await asyncio.to_thread(raw.ask, "nas1", b"?", reply_to=False, wait_s=0.2)
    replies = await asyncio.to_thread(raw.ask, "nas1", {"action": "list_zvols"})

    assert nothing == broken == []
    await eventually(lambda: nas.done)
    assert nas.done == ["one-1"]
    assert [reply["status"] for _, reply in replies] == ["success"]


async def test_interim_messages_come_only_to_a_caller_that_asks_for_them(agents: Agents, raw: Raw):
    await agents.agent(nas := Nas())
    create = {"action": "create_zvol", "zvol": "one-2", "zpool": "tank", "size_bytes": 512, "owner": {"kind": "plain"}}

    quiet = await asked_until_it_has_spoken(nas, raw, create)
    told = await asked_until_it_has_spoken(nas, raw, create, headers={"interim": True})

    assert [reply["status"] for _, reply in quiet] == ["success"]
    statuses = [reply["status"] for _, reply in told]
    assert statuses[0] == "accepted"
    assert statuses[-1] == "success"
    assert set(statuses[1:-1]) == {"progress"}
    # One every 0.2 s at most, although the work speaks every 0.05 s.
    worked_s = nas.spoken[-1] - nas.spoken[0]
    assert 2 <= len(statuses[1:-1]) <= worked_s / LIMITS.progress_s + 1
    assert told[1][1] == {"action": "zvol_created", "status": "progress", "text": "filling", "done": 1, "total": 4}


async def asked_until_it_has_spoken(nas: Nas, raw: Raw, body: Any, **how: Any) -> list[Any]:
    """The replies to work that ends when it has told 20 times how far it is."""
    nas.go.clear()
    nas.spoken.clear()
    asking = asyncio.create_task(asyncio.to_thread(raw.ask, "nas1", body, **how))
    await eventually(lambda: len(nas.spoken) >= 20)
    nas.go.set()
    return await asking


async def test_a_message_id_that_meant_another_request_is_refused(agents: Agents, raw: Raw):
    await agents.agent(nas := Nas())

    await asyncio.to_thread(raw.ask, "nas1", MAP, message_id="m-3")
    replies = await asyncio.to_thread(raw.ask, "nas1", MAP | {"zvol": "one-9"}, message_id="m-3")

    assert [reply["code"] for _, reply in replies] == ["protocol"]
    assert nas.done == ["one-1"]
