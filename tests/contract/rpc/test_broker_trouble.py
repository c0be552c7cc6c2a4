"""A broker that is down, restarts, is short of memory, or refuses us: a clear sentence in time, and nothing lost."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.support.agent_process import AgentProcess
from tests.support.broker import PrivateBroker, free_port
from tests.support.requires import requires

from onelun.config import Limits
from onelun.deadline import Deadline
from onelun.errors import NoReply, Unreachable
from onelun.model import Kind, Owner
from onelun.rpc.client import Client
from onelun.rpc.link import Link
from onelun.rpc.message import CreateZvol, Hello, ListZvols, MapZvol, ZvolCreated
from onelun.rpc.schema import Request

from .conftest import AT_ONCE_S, LIMITS, PATIENT, Agents, Nas, eventually

CREATE = CreateZvol(zvol="one-1", zpool="tank", size_bytes=512, owner=Owner(Kind.PLAIN))
MAP = MapZvol(zvol="one-1", remotehost="node1")
LIST = ListZvols(name="one-1")


@pytest.fixture(scope="module")
def own_urls(spare_broker: PrivateBroker) -> dict[str, str]:
    return spare_broker.set_up(frontends=["frontend"], nas=["nas1"])


@pytest.fixture
async def own_agents(own_urls: dict[str, str], tmp_path: Path) -> AsyncIterator[Agents]:
    started = Agents(own_urls, tmp_path)
    try:
        yield started
    finally:
        async with asyncio.timeout(120):
            await started.close()


async def asked(url: str, limits: Limits = LIMITS, deadline_s: float = 240) -> tuple[BaseException, float]:
    """The error of a request over a link of its own, and the seconds that it took."""
    link = Link(url, name="test")
    await link.open()
    started = time.monotonic()
    try:
        await Client(link, limits).ask("nas1", MAP, deadline=Deadline.after(deadline_s))
    except (Unreachable, NoReply) as error:
        return error, time.monotonic() - started
    finally:
        await link.close()
    raise AssertionError("somebody answered")


async def test_a_broker_that_is_down_is_said_to_be_within_the_time_to_accept():
    error, took_s = await asked(f"amqp://frontend:secret-word@127.0.0.1:{free_port('127.0.0.1')}/")

    assert isinstance(error, Unreachable)
    assert "cannot be reached: Connection refused" in str(error)
    assert "secret-word" not in str(error)
    assert took_s < AT_ONCE_S


async def test_a_refused_password_is_said_at_once(spare_broker: PrivateBroker, own_urls: dict[str, str]):
    error, took_s = await asked(spare_broker.url("frontend", "wrong-word"), PATIENT)

    assert str(error) == f"the broker at {spare_broker.host_port} refuses the password of user frontend"
    assert took_s < AT_ONCE_S


async def test_a_vhost_that_is_not_ours_is_said_at_once(spare_broker: PrivateBroker):
    error, _ = await asked(spare_broker.url().replace("%2F", "elsewhere"))

    assert "does not let user admin into the vhost elsewhere" in str(error)


async def test_something_else_on_the_port_is_said(spare_broker: PrivateBroker):
    error, _ = await asked(f"amqp://frontend:secret-word@127.0.0.1:{spare_broker.node.epmd_port}/")

    assert "does not speak AMQP" in str(error)


async def test_a_missing_exchange_is_said_with_its_remedy(spare_broker: PrivateBroker):
    link = Link(spare_broker.url(), name="test", exchange="nobody.made-it")
    await link.open()
    try:
        with pytest.raises(Unreachable, match=r"no exchange nobody\.made-it: run `onelun broker setup`"):
            await Client(link, LIMITS).ask("nas1", MAP, deadline=Deadline.after(60))
    finally:
        await link.close()


async def test_a_broker_short_of_memory_is_said_in_time_and_is_used_again_when_it_has_some(
    spare_broker: PrivateBroker, own_agents: Agents
):
    await own_agents.agent(nas := Nas())
    client = await own_agents.client()
    await client.ask("nas1", Hello(), deadline=Deadline.after(60))
    await asyncio.to_thread(spare_broker.ctl, "set_vm_memory_high_watermark", "0.000001")
    try:
        errors = []
        for _ in range(2):
            started = time.monotonic()
            with pytest.raises((Unreachable, NoReply)) as caught:
                await client.ask("nas1", MAP, deadline=Deadline.after(6))
            errors.append(caught.value)
            assert time.monotonic() - started < AT_ONCE_S
    finally:
        await asyncio.to_thread(spare_broker.ctl, "set_vm_memory_high_watermark", "0.4")

    # The first message is what makes the broker block us, so nobody knows of it; the second is not sent.
    assert isinstance(errors[1], Unreachable)
    assert "takes no messages (low on memory)" in str(errors[1])
    await asyncio.sleep(LIMITS.accept_s)
    nas.done.clear()
    await client.ask("nas1", MAP, deadline=Deadline.after(60))
    assert nas.done == ["one-1"]


async def test_a_restart_of_the_broker_loses_no_reply(spare_broker: PrivateBroker, own_agents: Agents):
    agent = await own_agents.agent(nas := Nas(), limits=PATIENT)
    client = await own_agents.client(limits=PATIENT)

    asking = asyncio.create_task(client.ask("nas1", CREATE, deadline=Deadline.after(240)))
    await eventually(lambda: nas.done)
    await asyncio.to_thread(spare_broker.stop, keep=True)
    nas.go.set()
    await asyncio.to_thread(spare_broker.start)

    assert await asking == ZvolCreated(uuid="u", size_bytes=512)
    assert nas.done == ["one-1"]
    assert nas.undone == []
    await eventually(agent.server.serving.is_set)


@pytest.fixture
def mortal_broker() -> Iterator[PrivateBroker]:
    """A broker to be killed; it comes back with the users that it had."""
    requires("rabbitmq-server")
    with PrivateBroker() as running:
        yield running


@pytest.fixture
async def caller(mortal_broker: PrivateBroker, tmp_path: Path) -> AsyncIterator[tuple[Client, AgentProcess]]:
    """A connected caller, and an agent that has answered it."""
    urls = await asyncio.to_thread(mortal_broker.set_up, frontends=["frontend"], nas=["nas1"])
    agent = AgentProcess(urls["nas.nas1"], "nas1", tmp_path)
    link = Link(urls["frontend"], name="test")
    try:
        await asyncio.to_thread(agent.start)
        await link.open()
        client = Client(link, LIMITS)
        await client.ask("nas1", Hello(), deadline=Deadline.after(60))
        yield client, agent
    finally:
        await link.close()
        await asyncio.to_thread(agent.kill)


async def failed(client: Client, request: Request) -> tuple[BaseException, float]:
    """The error of a request that may last four minutes, and the seconds that it took."""
    started = time.monotonic()
    with pytest.raises((Unreachable, NoReply)) as caught:
        await client.ask("nas1", request, deadline=Deadline.after(240))
    return caught.value, time.monotonic() - started


async def test_a_broker_killed_before_a_request_means_that_nothing_happened(
    mortal_broker: PrivateBroker, caller: tuple[Client, AgentProcess]
):
    client, _ = caller
    await asyncio.to_thread(mortal_broker.stop, keep=True)

    for error, took_s in await asyncio.gather(failed(client, MAP), failed(client, LIST)):
        assert isinstance(error, Unreachable)
        assert "cannot be reached: Connection refused" in str(error)
        assert took_s < 2 * LIMITS.accept_s + AT_ONCE_S


async def test_a_broker_killed_before_anything_was_accepted_leaves_the_outcome_unknown(
    mortal_broker: PrivateBroker, caller: tuple[Client, AgentProcess]
):
    client, agent = caller
    agent.signal(signal.SIGSTOP)

    asking = [asyncio.create_task(failed(client, request)) for request in (MAP, LIST)]
    await asyncio.sleep(0.5)
    await asyncio.to_thread(mortal_broker.stop, keep=True)
    (mapping, mapping_s), (listing, listing_s) = await asyncio.gather(*asking)

    assert isinstance(mapping, NoReply)
    assert re.search("outcome of map_zvol on nas1 is unknown: .* the broker at .* cannot be reached", str(mapping))
    assert mapping_s < 2 * LIMITS.accept_s + AT_ONCE_S
    # A read is looked for longer: asking again does no harm.
    assert isinstance(listing, NoReply)
    assert re.search("nas1 may have got list_zvols, but .* the broker at .* cannot be reached", str(listing))
    assert listing_s < 6 * LIMITS.accept_s + AT_ONCE_S


async def test_a_broker_killed_under_accepted_work_is_waited_for_and_then_named(
    mortal_broker: PrivateBroker, caller: tuple[Client, AgentProcess]
):
    client, agent = caller
    deadline_s = 3 * LIMITS.accept_s

    started = time.monotonic()
    asking = asyncio.create_task(client.ask("nas1", CREATE, deadline=Deadline.after(deadline_s)))
    await eventually(lambda: agent.done)
    await asyncio.to_thread(mortal_broker.stop, keep=True)

    with pytest.raises(NoReply, match=r"its outcome is unknown, since the broker at .* cannot be reached"):
        await asking
    assert deadline_s - 1 < time.monotonic() - started < deadline_s + AT_ONCE_S
