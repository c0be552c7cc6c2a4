"""What the broker cannot forbid, and what agents and callers therefore check themselves."""

from __future__ import annotations

import asyncio
import json
import threading
import uuid

import pytest
from tests.support.broker import PrivateBroker
from tests.support.raw import EXCHANGE, Raw

from onelun.deadline import Deadline
from onelun.errors import Conflict, NoReply, Rejected, Unreachable
from onelun.rpc.journal import Journal
from onelun.rpc.link import Link
from onelun.rpc.message import ListDev, MapZvol
from onelun.rpc.server import Server

from .conftest import LIMITS, Agents, Nas

MAP = {"action": "map_zvol", "zvol": "one-1", "remotehost": "node1"}


async def test_an_agent_drops_what_comes_through_the_default_exchange(agents: Agents, urls: dict[str, str]):
    await agents.agent(nas := Nas())

    with Raw(urls["compute.node1"]) as intruder:
        outcome = await asyncio.to_thread(intruder.outcome, "", "nas1", json.dumps(MAP).encode())
    with Raw(urls["frontend"]) as caller:
        await asyncio.to_thread(caller.ask, "nas1", MAP | {"zvol": "one-2"})

    assert outcome == "routed"
    assert nas.done == ["one-2"]


@pytest.mark.parametrize("header", ["CC", "BCC"])
async def test_an_agent_drops_a_copy_that_was_meant_for_another(agents: Agents, urls: dict[str, str], header: str):
    await agents.agent(nas := Nas())

    # RabbitMQ 3.10 does not check topic permissions for the keys in these headers.
    with Raw(urls["nas.nas2"]) as intruder:
        await asyncio.to_thread(
            intruder.outcome, EXCHANGE, "node2", json.dumps(MAP).encode(), headers={header: ["nas1"]}
        )
    with Raw(urls["frontend"]) as caller:
        await asyncio.to_thread(caller.ask, "nas1", MAP | {"zvol": "one-2"})

    assert nas.done == ["one-2"]


async def test_an_agent_drops_what_a_dead_letter_queue_sends_it(agents: Agents, urls: dict[str, str]):
    await agents.agent(nas := Nas())

    # The broker re-publishes a dead letter by itself, past the topic permissions of whoever made the queue.
    with Raw(urls["nas.nas2"]) as intruder:
        queue = f"rpc-{uuid.uuid4().hex}"
        arguments = {"x-dead-letter-exchange": EXCHANGE, "x-dead-letter-routing-key": "nas1", "x-message-ttl": 1}
        intruder.channel.queue_declare(queue, exclusive=True, arguments=arguments)
        outcome = await asyncio.to_thread(intruder.outcome, "", queue, json.dumps(MAP).encode())
        await asyncio.sleep(0.5)
    with Raw(urls["frontend"]) as caller:
        await asyncio.to_thread(caller.ask, "nas1", MAP | {"zvol": "one-2"})

    assert outcome == "routed"
    assert nas.done == ["one-2"]


async def test_a_reply_counts_only_from_the_node_that_was_asked(agents: Agents, urls: dict[str, str]):
    client = await agents.client()
    forged = json.dumps({"action": "dev_list", "status": "success", "body": [{"target": "forged"}]}).encode()

    def answer_as_another() -> str:
        """Be node1's queue, and have node2 answer what node1 is asked."""
        with Raw(urls["compute.node1"]) as node1, Raw(urls["compute.node2"]) as node2:
            node1.channel.queue_declare("node1", exclusive=True)
            node1.channel.queue_bind("node1", EXCHANGE, "node1")
            ready.set()
            for _, properties, _ in node1.channel.consume("node1", inactivity_timeout=60, auto_ack=True):
                return node2.outcome(
                    "", properties.reply_to, forged, correlation_id=properties.message_id, user_id="compute.node2"
                )
        return "nothing"

    ready = threading.Event()
    answering = asyncio.create_task(asyncio.to_thread(answer_as_another))
    await asyncio.to_thread(ready.wait, 60)

    with pytest.raises(NoReply):
        await client.ask("node1", ListDev(), deadline=Deadline.after(LIMITS.accept_s - 0.5))

    assert await answering == "routed"


async def test_a_compute_node_cannot_ask_anybody(agents: Agents):
    client = await agents.client("compute.node1")

    with pytest.raises(Unreachable, match=r"gives compute\.node1 no queue for replies"):
        await client.ask("nas1", MapZvol(zvol="one-1", remotehost="node1"), deadline=Deadline.after(60))


async def test_a_nas_that_asks_a_nas_hears_that_it_may_not_and_others_go_on(agents: Agents):
    await agents.agent(Nas(), "nas2")
    client = await agents.client("nas.nas1")

    outcomes = await asyncio.gather(
        *(
            client.ask(node, MapZvol(zvol="one-1", remotehost="node1"), deadline=Deadline.after(60))
            for node in ("node1", "nas2", "node2")
        ),
        return_exceptions=True,
    )

    assert [str(outcome) for outcome in outcomes] == [
        "no agent called node1 is connected to the broker",
        "the broker does not let nas.nas1 ask nas2: name both to `onelun broker setup`",
        "no agent called node2 is connected to the broker",
    ]


async def test_an_agent_refuses_to_serve_where_it_could_read_everybodys_requests(
    broker: PrivateBroker, urls: dict[str, str], tmp_path
):
    link = Link(broker.url(), name="a user without topic permissions")
    await link.open()
    server = Server(link, "nas1", Journal(str(tmp_path / "j")), Nas().handlers, role="nas", limits=LIMITS)

    try:
        async with asyncio.timeout(60):
            with pytest.raises(Rejected, match=r"read the requests to everybody: run `onelun broker setup`"):
                await server.serve()
    finally:
        await link.close()


async def test_an_agent_refuses_to_serve_under_a_name_that_its_user_does_not_have(urls: dict[str, str], tmp_path):
    link = Link(urls["nas.nas1"], name="nas1 in disguise")
    await link.open()
    server = Server(link, "nas2", Journal(str(tmp_path / "j")), Nas().handlers, role="nas", limits=LIMITS)

    try:
        async with asyncio.timeout(60):
            with pytest.raises(Rejected, match=r"does not let nas\.nas1 serve as nas2"):
                await server.serve()
    finally:
        await link.close()


async def test_a_second_agent_of_a_name_gives_up_and_the_first_goes_on(agents: Agents, urls: dict[str, str], tmp_path):
    await agents.agent(nas := Nas())
    link = await agents.link("nas.nas1", heartbeat_s=1)
    second = Server(link, "nas1", Journal(str(tmp_path / "j")), Nas().handlers, role="nas", limits=LIMITS)

    async with asyncio.timeout(60):
        with pytest.raises(Conflict, match="an agent called nas1 is connected to the broker already"):
            await second.serve()

    client = await agents.client()
    await client.ask("nas1", MapZvol(zvol="one-1", remotehost="node1"), deadline=Deadline.after(60))
    assert nas.done == ["one-1"]
