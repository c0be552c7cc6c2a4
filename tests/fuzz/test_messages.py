"""Requests as anybody may publish them: each that counts gets exactly one final reply, and none of them finds a bug inside."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st
from pika import BasicProperties
from tests.support.fuzzing import Loop, attacks
from tests.support.mutation import HOSTILE, HOSTILE_VALUES, as_bytes, as_json, texts, values
from tests.unit.compute.conftest import INITIATOR, Bench
from tests.unit.nas.conftest import CLOUD, Nodes

from onelun.config import Limits
from onelun.model import Attributes, Kind, Owner, Portal
from onelun.nas.agent import NasAgent
from onelun.nas.backends.memory.backend import MemoryBackend
from onelun.nas.exporters.memory import MemoryExporter
from onelun.rpc import message as m
from onelun.rpc.channel import Delivery
from onelun.rpc.intake import Intake
from onelun.rpc.job import Asker
from onelun.rpc.jobs import Jobs
from onelun.rpc.journal import Journal

EXCHANGE = "rocks.vm-manage"
LIMITS = Limits(preempt_s=0.5, finish_s=5.0, copy_s=5.0, accept_s=0.5, lease_s=60.0)
UUID = "5a0f1f1e-9d3e-4a0b-8a77-0d5f1d7a1000"
IQN = "iqn.2026-11.io.onelun.nas1:tank.one-1.e100001"
MIB = 1 << 20
# What stands in a field of that name, where it stands in one.
FIELDS: dict[str, Any] = {
    "zvol": "one-1",
    "zpool": "tank",
    "name": "one-1",
    "origin": "one-1",
    "target": "one-2",
    "snapshot": "snap-0",
    "remotehost": "node1",
    "remotehosts": ["node1"],
    "older_s": 5.0,
    "beside": "node2",
    "stays": "node2",
    "nas": "nas1",
    "host": "node1",
    "domain": "one-7",
    "size": "1",
    "size_bytes": MIB,
    "offset": 0,
    "hold_s": 5.0,
    "port": 3260,
    "lun": 1,
    "reason": "a disk",
    "uuid": UUID,
    "cloud": CLOUD,
    "vm": 7,
    "disk": 0,
    "path": "/var/lib/one/datastores/103/7/disk.0",
    "id": UUID,
    "owner": {"kind": "image", "cloud": CLOUD, "image_id": 1, "regtime": 5},
    "filesystem": "ext4",
    "needs": ["owner"],
    "attributes": {"compression": "lz4"},
    "initiator": INITIATOR,
    "address": "127.0.0.1",
    "user": "u",
    "secret": "s" * 16,
    "since": "snap-0",
    "until": "snap-1",
    "zpools": ["tank"],
    "on": False,
    "links": [],
    "extents": [[0, 4096, True]],
    "entry": {"name": "a", "kind": "file"},
    "data": "YWJj",
    "start_within": 5.0,
    "finish_within": 5.0,
    "v": 1,
    "held": [],
    "fenced": [],
    "link": "/var/lib/one/datastores/103/7/disk.0",
    "mode": 0o600,
    "last": True,
    "connector": {"initiator": INITIATOR, "host": "node1", "multipath": False},
}
# A target is another thing to a compute node.
TARGETS = ("set_zvol", "grow_dev", "tear_down", "write_backup")


def example(kind: type[m.Request], *, whole: bool) -> dict[str, Any]:
    """A request with all of its fields, or with those that it cannot do without."""
    told: dict[str, Any] = {"action": m.name_of(kind)}
    for field in msgspec.structs.fields(kind):
        if field.name in FIELDS and (whole or field.required):
            told[field.name] = FIELDS[field.name]
    if told["action"] in TARGETS:
        told["target"] = IQN
    return told


REQUESTS = tuple(example(verb.request, whole=whole) for verb in m.VERBS for whole in (True, False))


def test_every_example_is_a_request() -> None:
    for request in REQUESTS:
        m.decode_request(as_json(request))


class Sent:
    """Stands where rpc.post.Post stands."""

    def __init__(self) -> None:
        self.final: list[dict[str, Any]] = []

    def send(self, asker: Asker, body: bytes, *, interim: bool = False) -> None:
        # What pika takes as the name of a queue and as a property.
        assert asker.reply_to is None or isinstance(asker.reply_to, str)
        assert asker.correlation_id is None or isinstance(asker.correlation_id, str)
        document = json.loads(body)
        assert isinstance(document, dict)
        if not interim:
            self.final.append(document)


class Channel:
    """Counts what is acknowledged."""

    def __init__(self) -> None:
        self.acked = 0

    def ack(self, tag: int) -> None:
        self.acked += 1


class Agent:
    """An agent's queue and what is behind it, all of it in memory but for journal and catalogue."""

    def __init__(self, loop: Loop, place: Path, node: str) -> None:
        self.node, self._loop = node, loop
        self.post = Sent()
        loop.run(self._begin(place))

    async def _begin(self, place: Path) -> None:
        if self.node == "nas1":
            self.backend = MemoryBackend("tank")
            exporter = MemoryExporter("nas1", Portal("127.0.0.1"))
            self._agent: Any = NasAgent(
                "nas1", str(place), {"tank": self.backend}, exporter, Nodes("node1", "node2"), LIMITS
            )
        else:
            self._agent = Bench(place).agent
        await self._agent.start()
        self._journal = Journal(str(place / "journal"))
        self._jobs = Jobs(self.node, self._journal, self.post, LIMITS)  # type: ignore[arg-type]
        role = "nas" if self.node == "nas1" else "compute"
        hello = m.HelloIs(node=self.node, role=role, instance=UUID, version="0", initiator=INITIATOR)
        self._intake = Intake(
            hello,
            self._agent.handlers(),
            exchange=EXCHANGE,
            jobs=self._jobs,
            journal=self._journal,
            post=self.post,  # type: ignore[arg-type]
        )
        if role == "nas":
            await self._prepare()

    async def _prepare(self) -> None:
        for number in (1, 2):
            owner = Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=number, regtime=5)
            await self.backend.create(f"one-{number}", str(uuid.uuid4()), MIB, owner, Attributes())
            (made,) = [volume for volume in await self.backend.volumes() if volume.name == f"one-{number}"]
            await self.backend.publish(made.uuid)

    def receive(self, body: bytes, **properties: Any) -> list[dict[str, Any]]:
        """The final replies to a message."""
        self.post.final.clear()
        channel = Channel()
        told = {"message_id": str(uuid.uuid4()), "reply_to": "rpc-a", "user_id": "frontend", **properties}
        key = told.pop("routing_key", self.node)
        exchange = told.pop("exchange", EXCHANGE)
        delivery = Delivery(1, exchange, key, BasicProperties(**told), body)
        self._loop.run(self._take(channel, delivery))
        assert channel.acked == 1
        return list(self.post.final)

    async def _take(self, channel: Channel, delivery: Delivery) -> None:
        self._intake.take(channel, delivery)  # type: ignore[arg-type]
        while waiting := self._intake._under_way | self._jobs._tasks:
            await asyncio.wait(waiting)
        # A query's counterpart may be started by it.
        await asyncio.sleep(0)

    def close(self) -> None:
        self._loop.run(self._journal.close())
        self._agent.close()


@pytest.fixture(scope="module")
def agents(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Agent]]:
    made = {node: Agent(loop, tmp_path_factory.mktemp(node), node) for node in ("nas1", "node1")}
    yield made
    for agent in made.values():
        agent.close()


def answered(agent: Agent, body: bytes, **properties: Any) -> bool:
    """Whether it succeeded. Exactly one final reply came, which knows its reason."""
    replies = agent.receive(body, **properties)

    assert len(replies) == 1, replies
    (reply,) = replies
    assert reply["status"] in ("success", "error")
    if reply["status"] == "error":
        assert reply["code"] != "internal", reply
        assert reply["error"].strip()
    return bool(reply["status"] == "success")


NODES = st.sampled_from(["nas1", "node1"])


@attacks("messages", NODES, values(REQUESTS))
def test_requests_with_other_fields(tools, agents: dict[str, Agent], node: str, request: Any) -> bool:
    tools.say("", "no", 1)
    return answered(agents[node], as_json(request))


NUMBERS = st.sampled_from(
    [-1, 0, 1 << 31, (1 << 50) + 1, (1 << 63) - 1, 1 << 63, -(1 << 63) - 1, 1 << 64, 10**30, 0.5, 1e308]
)
VALUES = st.one_of(st.sampled_from(HOSTILE), st.sampled_from(HOSTILE_VALUES), NUMBERS, NUMBERS)


@attacks("messages", st.sampled_from(REQUESTS), st.integers(0, 30), VALUES, share=2.0)
def test_requests_with_one_hostile_value(
    tools, agents: dict[str, Agent], request: dict[str, Any], at: int, value: Any
) -> bool:
    tools.say("", "no", 1)
    key = list(request)[at % len(request)]
    verb = m.BY_NAME[request["action"]]

    return answered(agents["node1" if verb.role == "compute" else "nas1"], as_json({**request, key: value}))


BODIES = texts([json.dumps(request) for request in REQUESTS]).map(as_bytes)


@attacks("messages", NODES, st.one_of(BODIES, BODIES, st.binary(max_size=200)))
def test_bodies_that_are_none(tools, agents: dict[str, Agent], node: str, body: bytes) -> bool:
    tools.say("", "no", 1)
    return answered(agents[node], body)


# pika gives a short string as bytes when it is no UTF-8.
SHORT = st.one_of(
    st.sampled_from([text[:200] for text in HOSTILE if text.isprintable()]), st.binary(min_size=1, max_size=255)
)
HEADERS = st.dictionaries(
    st.sampled_from(["interim", "x-death", "CC", "a", ""]),
    st.one_of(st.none(), st.booleans(), st.integers(), st.text()),
)
PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(
            ("message_id", "correlation_id", "user_id", "content_type", "type", "app_id", "expiration"), SHORT
        ),
        "reply_to": SHORT,
        "headers": HEADERS,
        "routing_key": SHORT,
        "exchange": SHORT,
        "priority": st.integers(0, 255),
    },
)


@attacks("messages", NODES, PROPERTIES, st.sampled_from(REQUESTS))
def test_properties_of_any_kind(
    tools, agents: dict[str, Agent], node: str, properties: dict[str, Any], request: dict[str, Any]
) -> None:
    tools.say("", "no", 1)

    for reply in agents[node].receive(as_json(request), **properties):
        assert reply.get("code") != "internal", reply
