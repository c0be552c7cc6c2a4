"""A caller always learns what became of its request, or that nobody knows; and nothing is ever done twice."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.support.agent_process import AgentProcess
from tests.support.broker import PrivateBroker
from tests.support.sandbox.broker import has_queue

from onelun.deadline import Deadline
from onelun.errors import Busy, Cancelled, Interrupted, NoReply, Stalled, Unreachable
from onelun.model import Kind, Owner
from onelun.rpc.message import Cancel, CreateZvol, DelZvol, ListZvols, MapZvol, Status, StatusIs, ZvolCreated, ZvolList

from .conftest import AT_ONCE_S, LIMITS, PATIENT, Agents, Nas, eventually

CREATE = CreateZvol(zvol="one-1", zpool="tank", size_bytes=512, owner=Owner(Kind.PLAIN))


@pytest.fixture
async def process(urls: dict[str, str], tmp_path: Path) -> AsyncIterator[AgentProcess]:
    agent = AgentProcess(urls["nas.nas1"], "nas1", tmp_path)
    await asyncio.to_thread(agent.start)
    try:
        yield agent
    finally:
        await asyncio.to_thread(agent.kill)


async def test_the_same_id_asked_twice_at_once_is_worked_on_once(agents: Agents, soon: Deadline):
    await agents.agent(nas := Nas())
    client, other = await agents.client(), await agents.client()

    asking = [
        asyncio.create_task(one.ask("nas1", CREATE, deadline=soon, id="twice")) for one in (client, client, other)
    ]
    await eventually(lambda: nas.done)
    await asyncio.sleep(0.2)
    nas.go.set()
    replies = await asyncio.gather(*asking)

    assert replies == 3 * [ZvolCreated(uuid="u", size_bytes=512)]
    assert nas.done == ["one-1"]


async def test_the_same_id_asked_again_later_brings_the_first_reply(agents: Agents, soon: Deadline):
    await agents.agent(nas := Nas())
    client = await agents.client()

    nas.go.set()
    first = await client.ask("nas1", CREATE, deadline=soon, id="again")
    second = await client.ask("nas1", CREATE, deadline=Deadline.after(59), id="again")

    assert first == second
    assert nas.done == ["one-1"]


async def test_progress_reaches_the_caller_in_words(agents: Agents, soon: Deadline):
    await agents.agent(nas := Nas())
    client = await agents.client()
    heard: list[str] = []

    def hear(text: str) -> None:
        heard.append(text)
        nas.go.set()

    await client.ask("nas1", CREATE, deadline=soon, on_progress=hear)

    assert heard
    assert set(heard) == {"filling 25 %"}


async def test_work_that_is_silent_for_long_is_waited_for(agents: Agents, soon: Deadline):
    await agents.agent(nas := Nas())
    client = await agents.client()

    # DelZvol's work says nothing; three progress periods are 0.6 s.
    asyncio.get_running_loop().call_later(1.5, nas.go.set)
    await client.ask("nas1", DelZvol(zvol="one-1"), deadline=soon)

    assert nas.done == ["one-1"]


async def test_a_cancelled_caller_has_its_work_undone_before_it_goes(agents: Agents, soon: Deadline):
    await agents.agent(nas := Nas())
    client = await agents.client()

    asking = asyncio.create_task(client.ask("nas1", CREATE, deadline=soon, id="regretted"))
    await eventually(lambda: nas.done)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

    assert nas.undone == ["one-1"]
    with pytest.raises(Cancelled):
        await client.ask("nas1", CREATE, deadline=soon, id="regretted")


async def test_a_cancel_of_what_is_unknown_or_done_succeeds(agents: Agents, soon: Deadline):
    await agents.agent(nas := Nas())
    client = await agents.client()

    nas.go.set()
    await client.ask("nas1", CREATE, deadline=soon, id="done")
    for known in ("done", "never-seen"):
        await client.ask("nas1", Cancel(id=known), deadline=soon)

    assert await client.ask("nas1", CREATE, deadline=soon, id="done") == ZvolCreated(uuid="u", size_bytes=512)


async def test_a_request_whose_status_was_asked_before_it_came_never_starts(agents: Agents, soon: Deadline):
    await agents.agent(nas := Nas())
    client = await agents.client()

    status = await client.ask("nas1", Status(id="late"), deadline=soon)
    with pytest.raises(Cancelled, match="create_zvol was withdrawn before it came to nas1: nothing was done"):
        await client.ask("nas1", CREATE, deadline=soon, id="late")

    assert status == StatusIs(state="unknown")
    assert nas.done == []


async def test_work_that_takes_longer_than_its_limit_is_undone_and_said_so(agents: Agents):
    await agents.agent(nas := Nas())
    client = await agents.client()

    with pytest.raises(Cancelled, match=r"create_zvol was given up because it did not end within 1\.5 s"):
        await client.ask("nas1", msgspec.structs.replace(CREATE, finish_within=1.5), deadline=Deadline.after(60))

    assert nas.undone == ["one-1"]


async def test_work_that_cannot_be_stopped_is_answered_as_stalled(agents: Agents):
    await agents.agent(nas := Nas())
    client = await agents.client()
    started = time.monotonic()

    with pytest.raises(Stalled, match="could not be stopped: its outcome is unknown"):
        await client.ask("nas1", DelZvol(zvol="one-1", finish_within=0.5), deadline=Deadline.after(240))

    assert time.monotonic() - started < AT_ONCE_S
    nas.go.set()


async def test_a_read_that_is_not_answered_in_time_is_an_error(agents: Agents):
    await agents.agent(Nas())
    client = await agents.client()

    with pytest.raises(NoReply, match="nas1 did not answer list_zvols in time"):
        await client.ask("nas1", ListZvols(name="slow"), deadline=Deadline.after(LIMITS.accept_s - 0.5))


async def test_an_agent_that_is_stopped_interrupts_its_work_and_says_so(agents: Agents, soon: Deadline):
    agent = await agents.agent(nas := Nas())
    client = await agents.client()

    asking = asyncio.create_task(client.ask("nas1", CREATE, deadline=soon))
    await eventually(lambda: nas.done)
    await agent.stop()

    with pytest.raises(Interrupted, match="its agent was stopped: ask again"):
        await asking
    assert nas.undone == ["one-1"]
    with pytest.raises(Unreachable, match="no agent called nas1"):
        await client.ask("nas1", CREATE, deadline=soon)


async def test_a_killed_agent_is_known_to_be_away_at_once(agents: Agents, broker: PrivateBroker, process: AgentProcess):
    client = await agents.client(limits=PATIENT)
    await client.ask("nas1", MapZvol(zvol="one-1", remotehost="node1"), deadline=Deadline.after(60))

    process.kill()
    # What is published before the broker has noticed may be lost with the queue; then nobody knows.
    async with asyncio.timeout(60):
        while await asyncio.to_thread(has_queue, broker.url(), "nas1"):
            await asyncio.sleep(0.01)
    started = time.monotonic()
    with pytest.raises(Unreachable, match="no agent called nas1"):
        await client.ask("nas1", MapZvol(zvol="one-2", remotehost="node1"), deadline=Deadline.after(240))

    assert time.monotonic() - started < AT_ONCE_S


async def test_an_agent_killed_in_the_middle_says_interrupted_when_it_is_back(agents: Agents, process: AgentProcess):
    client = await agents.client()

    asking = asyncio.create_task(client.ask("nas1", CREATE, deadline=Deadline.after(240)))
    await eventually(lambda: process.done)
    process.kill()
    await asyncio.sleep(1)
    await asyncio.to_thread(process.start)

    with pytest.raises(Interrupted, match="nas1 was restarted: ask again"):
        await asking
    assert process.done == ["one-1"]


async def test_sigterm_ends_an_agent_cleanly(process: AgentProcess):
    assert await asyncio.to_thread(process.terminate) == 0


async def test_what_a_hung_agent_did_not_take_in_time_never_starts(agents: Agents, process: AgentProcess):
    client = await agents.client()
    await client.ask("nas1", MapZvol(zvol="before", remotehost="node1"), deadline=Deadline.after(60))
    process.signal(signal.SIGSTOP)
    started = time.monotonic()

    with pytest.raises(NoReply, match="nas1 is connected to the broker but hangs"):
        await client.ask("nas1", MapZvol(zvol="hung", remotehost="node1"), deadline=Deadline.after(240))
    took_s = time.monotonic() - started
    process.signal(signal.SIGCONT)
    # What it reads just after it woke up may be as old as its hang.
    await asyncio.sleep(1.5)
    await client.ask("nas1", MapZvol(zvol="after", remotehost="node1"), deadline=Deadline.after(60))

    # The time to accept, and as much again for the question what became of it.
    assert took_s < 2 * LIMITS.accept_s + AT_ONCE_S
    assert process.done == ["before", "after"]


async def test_an_agent_that_wakes_up_in_time_to_answer_refuses_what_is_late(agents: Agents, process: AgentProcess):
    client = await agents.client()
    await client.ask("nas1", MapZvol(zvol="before", remotehost="node1"), deadline=Deadline.after(60))
    process.signal(signal.SIGSTOP)
    asyncio.get_running_loop().call_later(1.25 * LIMITS.accept_s, process.signal, signal.SIGCONT)

    with pytest.raises((Busy, Unreachable), match="nothing was"):
        await client.ask("nas1", MapZvol(zvol="late", remotehost="node1"), deadline=Deadline.after(240))

    assert process.done == ["before"]


async def test_a_caller_that_loses_its_connection_still_gets_the_reply(
    agents: Agents, broker: PrivateBroker, soon: Deadline
):
    await agents.agent(nas := Nas())
    client = await agents.client()

    asking = asyncio.create_task(client.ask("nas1", CREATE, deadline=soon))
    await eventually(lambda: nas.done)
    await asyncio.to_thread(broker.ctl, "close_all_user_connections", "frontend", "test")
    nas.go.set()

    assert await asking == ZvolCreated(uuid="u", size_bytes=512)
    assert nas.done == ["one-1"]


async def test_an_agent_that_loses_its_connection_works_on_and_answers(
    agents: Agents, broker: PrivateBroker, soon: Deadline, monkeypatch: pytest.MonkeyPatch
):
    agent = await agents.agent(nas := Nas())
    client = await agents.client()
    lost = asyncio.Event()
    serving, ends = agent.server.serving, agent.server.serving.clear
    monkeypatch.setattr(serving, "clear", lambda: (lost.set(), ends()))

    asking = asyncio.create_task(client.ask("nas1", CREATE, deadline=soon))
    await eventually(lambda: nas.done)
    await asyncio.to_thread(broker.ctl, "close_all_user_connections", "nas.nas1", "test")
    # It may serve again before rabbitmqctl ends.
    await eventually(lost.is_set)
    nas.go.set()

    assert await asking == ZvolCreated(uuid="u", size_bytes=512)
    assert nas.done == ["one-1"]
    assert nas.undone == []


async def test_a_read_that_a_killed_agent_took_is_asked_again_when_it_is_back(agents: Agents, process: AgentProcess):
    client = await agents.client()
    process.signal(signal.SIGSTOP)
    started = time.monotonic()

    asking = asyncio.create_task(client.ask("nas1", Status(id="never-seen"), deadline=Deadline.after(240)))
    await asyncio.sleep(0.5)
    process.kill()
    await asyncio.to_thread(process.start)

    assert await asking == StatusIs(state="unknown")
    assert time.monotonic() - started < 4 * LIMITS.accept_s + AT_ONCE_S


async def test_a_read_that_an_agent_took_before_it_went_for_good_ends_as_unknown(agents: Agents, process: AgentProcess):
    client = await agents.client()
    process.signal(signal.SIGSTOP)
    started = time.monotonic()

    asking = asyncio.create_task(client.ask("nas1", ListZvols(name="one-1"), deadline=Deadline.after(240)))
    await asyncio.sleep(0.5)
    process.kill()

    with pytest.raises(NoReply, match=r"may have got list_zvols, but was not there for \d+ s: no agent called nas1"):
        await asking
    assert time.monotonic() - started < 6 * LIMITS.accept_s + AT_ONCE_S


async def test_a_read_from_an_agent_that_hangs_ends_long_before_its_deadline(agents: Agents, process: AgentProcess):
    client = await agents.client()
    process.signal(signal.SIGSTOP)
    started = time.monotonic()

    with pytest.raises(NoReply, match="nas1 is connected to the broker but hangs: it answered neither list_zvols nor"):
        await client.ask("nas1", ListZvols(name="one-1"), deadline=Deadline.after(240))

    assert time.monotonic() - started < 2 * LIMITS.accept_s + AT_ONCE_S


async def test_a_slow_read_is_waited_for_and_done_once_however_often_it_is_asked(agents: Agents):
    await agents.agent(nas := Nas())
    client = await agents.client()

    reply = await client.ask("nas1", ListZvols(name="leisurely"), deadline=Deadline.after(120))

    assert reply == ZvolList(body=[{"zvol": "leisurely"}])
    assert nas.listed == ["leisurely"]
