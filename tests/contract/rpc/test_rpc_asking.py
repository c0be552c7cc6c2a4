"""Asking an agent over a real broker."""

from __future__ import annotations

import asyncio
import time

import pytest

from onelun.deadline import Deadline
from onelun.errors import NotFound, OnelunError, Unreachable
from onelun.rpc.message import Hello, HelloIs, ListZvols, MapZvol, ZvolMapped

from .conftest import AT_ONCE_S, PATIENT, Agents, Nas


async def test_a_request_brings_the_reply_of_its_handler(agents: Agents, soon: Deadline):
    await agents.agent(nas := Nas())
    client = await agents.client()

    reply = await client.ask("nas1", MapZvol(zvol="one-1", remotehost="node1"), deadline=soon)

    assert reply == ZvolMapped(bdev="/dev/loop0", device="/dev/onelun/x", uuid="u", size_bytes=512, epoch=1)
    assert nas.done == ["one-1"]
    assert nas.callers == ["frontend"]


async def test_an_error_keeps_its_kind_its_sentence_and_its_facts(agents: Agents, soon: Deadline):
    await agents.agent(Nas())
    client = await agents.client()

    with pytest.raises(NotFound, match="there is no zvol called absent") as caught:
        await client.ask("nas1", MapZvol(zvol="absent", remotehost="node1"), deadline=soon)

    assert caught.value.facts == {"zvol": "absent"}


async def test_a_handler_that_crashes_is_answered_without_its_traceback(agents: Agents, soon: Deadline):
    await agents.agent(Nas())
    client = await agents.client()

    with pytest.raises(OnelunError) as caught:
        await client.ask("nas1", MapZvol(zvol="crash", remotehost="node1"), deadline=soon)

    assert caught.value.code == "internal"
    assert "secret detail" not in str(caught.value)


async def test_an_absent_agent_is_known_at_once(agents: Agents):
    client = await agents.client(limits=PATIENT)
    started = time.monotonic()

    with pytest.raises(Unreachable, match="no agent called nas2 is connected to the broker"):
        await client.ask("nas2", MapZvol(zvol="one-1", remotehost="node1"), deadline=Deadline.after(240))

    assert time.monotonic() - started < AT_ONCE_S


async def test_hello_tells_who_answers(agents: Agents, soon: Deadline):
    await agents.agent(Nas())
    client = await agents.client()

    hello = await client.ask("nas1", Hello(), deadline=soon)

    assert isinstance(hello, HelloIs)
    assert (hello.node, hello.role) == ("nas1", "nas")


async def test_three_hundred_requests_at_once_over_one_link_are_all_answered(agents: Agents):
    await agents.agent(nas := Nas())
    client = await agents.client(limits=PATIENT)
    deadline = Deadline.after(120)

    replies = await asyncio.gather(
        *(client.ask("nas1", MapZvol(zvol=f"one-{n}", remotehost="node1"), deadline=deadline) for n in range(200)),
        *(client.ask("nas1", ListZvols(name=f"one-{n}"), deadline=deadline) for n in range(100)),
    )

    assert len(replies) == 300
    assert sorted(nas.done) == sorted(f"one-{n}" for n in range(200))
