"""An agent that is asked for more than it has room for: nobody loses by it, and what frees something passes the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import pytest

from onelun.config import Limits
from onelun.deadline import Deadline
from onelun.errors import Busy
from onelun.model import Kind, Owner
from onelun.rpc.client import Client
from onelun.rpc.job import Job
from onelun.rpc.journal import RowState
from onelun.rpc.message import (
    CreateZvol,
    DelZvol,
    ListZvols,
    MapZvol,
    Status,
    StatusIs,
    ZvolCreated,
    ZvolDeleted,
    ZvolList,
    ZvolMapped,
)
from onelun.rpc.room import Room
from onelun.rpc.schema import Request

from .conftest import Agents, Nas, eventually

SMALL = Limits(accept_s=5.0, finish_s=60.0, progress_s=0.2, preempt_s=1.0, at_once=4)
PLENTY_S = 50.0


@pytest.fixture(autouse=True)
def _asked_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was turned away comes back soon, however slow the machine is."""
    monkeypatch.setattr("onelun.rpc.room.LONGEST_S", 0.5)


def create(number: int) -> CreateZvol:
    return CreateZvol(zvol=f"one-{number}", zpool="tank", size_bytes=512, owner=Owner(Kind.PLAIN))


def map_to(host: str) -> MapZvol:
    return MapZvol(zvol=f"for-{host}", remotehost=host)


@dataclass
class Slow(Nas):
    """What takes waits for `go`; what frees does not."""

    freed: list[str] = field(default_factory=list)

    async def on_map(self, request: MapZvol, job: Job) -> ZvolMapped:
        self.done.append(request.zvol)
        await self.go.wait()
        return ZvolMapped(bdev="/dev/loop0", device="/dev/onelun/x", uuid="u", size_bytes=512, epoch=1)

    async def on_delete(self, request: DelZvol, job: Job) -> ZvolDeleted:
        self.freed.append(request.zvol)
        return ZvolDeleted()


def ask(client: Client, request: CreateZvol | MapZvol, id_: str | None = None) -> asyncio.Task:
    return asyncio.create_task(client.ask("nas1", request, deadline=Deadline.after(PLENTY_S), id=id_))


async def filled(client: Client, nas: Slow) -> list[asyncio.Task]:
    """Requests that take all the room, and are worked on."""
    asking = [ask(client, create(number)) for number in range(SMALL.at_once)]
    await eventually(lambda: len(nas.done) == SMALL.at_once, PLENTY_S)
    return asking


async def test_one_without_room_changes_nothing_and_is_told_in_one_sentence(agents: Agents, monkeypatch):
    # Its time is over before it may come again.
    monkeypatch.setattr("onelun.rpc.room.SHORTEST_S", 2 * PLENTY_S)
    agent = await agents.agent(nas := Slow(), limits=SMALL)
    client = await agents.client(limits=SMALL)
    asking = await filled(client, nas)

    with pytest.raises(
        Busy, match=r"nas1 has more to do than it can: with 4 requests ahead it did not take create_zvol"
    ):
        await client.ask("nas1", create(9), deadline=Deadline.after(PLENTY_S), id="turned away")

    assert await agent.journal.find("turned away") is None
    nas.go.set()
    await asyncio.gather(*asking)
    assert "one-9" not in nas.done


async def test_all_of_many_more_than_have_room_are_done_once(agents: Agents):
    await agents.agent(nas := Slow(), limits=SMALL)
    client = await agents.client(limits=SMALL)
    asking = [ask(client, create(number)) for number in range(10 * SMALL.at_once)]
    await eventually(lambda: len(nas.done) == SMALL.at_once, PLENTY_S)

    nas.go.set()
    replies = await asyncio.gather(*asking)

    assert replies == [ZvolCreated(uuid="u", size_bytes=512)] * len(asking)
    assert sorted(nas.done) == sorted(f"one-{number}" for number in range(len(asking)))


async def test_one_that_waits_for_room_is_taken_under_the_id_that_it_had(agents: Agents):
    agent = await agents.agent(nas := Slow(), limits=SMALL)
    client = await agents.client(limits=SMALL)
    asking = await filled(client, nas)
    told: list[str] = []

    late = asyncio.create_task(
        client.ask("nas1", create(9), deadline=Deadline.after(PLENTY_S), id="late", on_progress=told.append)
    )
    await eventually(lambda: told, PLENTY_S)
    nas.go.set()
    await asyncio.gather(late, *asking)

    assert told[0].startswith("nas1 has 4 requests under way")
    assert await agent.journal.find("late") is not None
    assert nas.done.count("one-9") == 1


async def test_what_frees_and_what_looks_passes_a_full_room(agents: Agents, soon: Deadline):
    await agents.agent(nas := Slow(), limits=SMALL)
    client = await agents.client(limits=SMALL)
    asking = await filled(client, nas)

    deleted = await client.ask("nas1", DelZvol(zvol="old"), deadline=soon)
    listed = await client.ask("nas1", ListZvols(name="one-1"), deadline=soon)

    assert deleted == ZvolDeleted()
    assert nas.freed == ["old"]
    assert listed == ZvolList(body=[{"zvol": "one-1"}])
    nas.go.set()
    await asyncio.gather(*asking)


async def test_a_host_that_hangs_leaves_room_for_the_others(agents: Agents):
    await agents.agent(nas := Slow(), limits=SMALL)
    client = await agents.client(limits=SMALL)

    asking = [ask(client, map_to("node1")) for _ in range(SMALL.at_once)]
    await eventually(lambda: len(nas.done) == 3, PLENTY_S)
    asking.append(ask(client, map_to("node2")))
    await eventually(lambda: "for-node2" in nas.done, PLENTY_S)

    assert nas.done.count("for-node1") == 3
    nas.go.set()
    await asyncio.gather(*asking)


async def test_what_was_done_before_is_told_though_there_is_no_room(agents: Agents, soon: Deadline):
    await agents.agent(nas := Slow(), limits=SMALL)
    client = await agents.client(limits=SMALL)
    nas.go.set()
    first = await client.ask("nas1", create(9), deadline=soon, id="before")
    nas.go.clear()
    nas.done.clear()
    asking = await filled(client, nas)

    again = await client.ask("nas1", create(9), deadline=soon, id="before")
    status = await client.ask("nas1", Status(id="before"), deadline=soon)

    assert again == first
    assert isinstance(status, StatusIs)
    assert status.state == "done"
    assert "one-9" not in nas.done
    nas.go.set()
    await asyncio.gather(*asking)


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """So many requests find no room, whatever there is, and are to come again when their time is long over."""

    def begin(refusals: int, retry_after_s: float = 2 * PLENTY_S) -> None:
        left = [Busy("no room", retry_after_s=retry_after_s, under_way=4)] * refusals

        def check(*_: object) -> None:
            if left:
                raise left.pop()

        monkeypatch.setattr(Room, "check", check)

    return begin


def unconfirmed(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker's word for the first message is lost, as with a connection that breaks: it is sent once more."""
    send, sent = client.send, []

    async def lossy(node: str, request: Request, request_id: str, deadline: Deadline) -> bool:
        confirmed = await send(node, request, request_id, deadline)
        sent.append(request)
        return confirmed and len(sent) > 1

    monkeypatch.setattr(client, "send", lossy)


async def test_one_that_came_twice_and_was_refused_once_ends_as_the_other_does(agents: Agents, refusing, monkeypatch):
    await agents.agent(nas := Slow(), limits=SMALL)
    client = await agents.client(limits=SMALL)
    unconfirmed(client, monkeypatch)
    refusing(1)

    asking = ask(client, create(9), "twice")
    await eventually(lambda: nas.done, PLENTY_S)
    nas.go.set()

    assert await asking == ZvolCreated(uuid="u", size_bytes=512)
    assert nas.done == ["one-9"]


async def test_one_that_came_twice_and_was_refused_twice_never_starts(agents: Agents, refusing, monkeypatch):
    agent = await agents.agent(nas := Slow(), limits=SMALL)
    client = await agents.client(limits=SMALL)
    unconfirmed(client, monkeypatch)
    refusing(2)

    with pytest.raises(Busy, match="nas1 has more to do than it can"):
        await ask(client, create(9), "twice")

    row = await agent.journal.find("twice")
    assert row is not None
    assert row.state is RowState.WITHDRAWN
    assert nas.done == []


async def test_one_that_came_twice_and_is_cancelled_while_it_waits_for_room_is_undone(
    agents: Agents, refusing, monkeypatch
):
    # It would not end by itself while the test waits.
    long = msgspec.structs.replace(SMALL, finish_s=20 * PLENTY_S)
    await agents.agent(nas := Slow(), limits=long)
    client = await agents.client(limits=long)
    unconfirmed(client, monkeypatch)
    refusing(1, PLENTY_S)
    told: list[str] = []

    asking = asyncio.create_task(
        client.ask("nas1", create(9), deadline=Deadline.after(20 * PLENTY_S), id="twice", on_progress=told.append)
    )
    await eventually(lambda: nas.done and "no room" in told, PLENTY_S)
    asking.cancel()

    await eventually(lambda: nas.undone == ["one-9"], PLENTY_S)
