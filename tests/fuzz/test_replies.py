"""Replies as any node may write them into a caller's queue: the caller gets what it asked for, or one sentence, in its time."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st
from tests.fuzz.test_arguments import CALLS, Given, Shown, World, run, world
from tests.fuzz.test_messages import HEADERS, REQUESTS, SHORT, UUID
from tests.support.fake_nas import Cloud
from tests.support.fuzzing import Loop, attacks
from tests.support.mutation import Step, as_bytes, as_json, blobs, changed_value, steps, texts, values

from onelun.config import Limits
from onelun.deadline import Deadline
from onelun.errors import ProtocolError, from_wire
from onelun.rpc import message as m
from onelun.rpc.channel import Delivery, properties_of
from onelun.rpc.client import Client
from onelun.rpc.link import Link

__all__ = ["world"]

LIMITS = Limits(accept_s=0.02, finish_s=0.05, copy_s=0.05, progress_s=0.01)
FIELDS: dict[str, Any] = {
    "bdev": "/dev/sda",
    "device": "/dev/onelun/nas1/tank/one-1",
    "uuid": UUID,
    "size_bytes": 1 << 20,
    "epoch": 1,
    "node": "nas1",
    "role": "nas",
    "instance": UUID,
    "version": "0",
    "initiator": "iqn.2026-11.io.onelun.host:node1",
    "state": "done",
    "exists": True,
    "entries": [],
    "data": "YWJj",
    "destroyed": True,
    "held": True,
    "name": "one-1",
    "total_bytes": 3,
    "used_bytes": 2,
    "free_bytes": 1,
    "zpools": {},
    "failed": {},
    "connected": [],
    "dropped": [],
    "made_at": 1.5,
    "zvol": "one-1",
    "address": "127.0.0.1",
    "port": 3260,
    "user": "u",
    "secret": "s",
    "target": "iqn.a",
    "lun": 1,
    "lease_s": 60.0,
    "debt": False,
    "extents": [],
    "body": [{"zvol": "one-1", "vm": 7, "disk": 0}],
    "connection": {},
}


def example(kind: type[m.Reply]) -> dict[str, Any]:
    told = {field.name: FIELDS[field.name] for field in msgspec.structs.fields(kind) if field.name in FIELDS}
    return {"action": m.name_of(kind), "status": "success", **told}


OTHERS = (
    {"action": None, "status": "error", "error": "it is busy", "code": "busy", "pool": "tank", "needed": 7},
    {"action": "zvol_mapped", "status": "error", "error": "no", "code": "rejected", "sentence": "a", "self": 1},
    {"action": "zvol_mapped", "status": "accepted"},
    {"action": "zvol_mapped", "status": "progress", "text": "copying", "done": 1, "total": 2},
    {"action": "status_is", "status": "success", "state": "running", "reply": None},
    {"action": "status_is", "status": "success", "state": "done", "reply": {"status": "success"}},
)
REPLIES = (*(example(verb.reply) for verb in m.VERBS), *OTHERS)
BODIES = st.one_of(
    values(REPLIES).map(as_json),
    values(OTHERS).map(as_json),
    texts([json.dumps(reply) for reply in REPLIES]).map(as_bytes),
    blobs([as_json(reply) for reply in OTHERS]),
)


class Answered(Client):
    """A client whose every message is answered at once, by whoever `user` is, with `body`."""

    user, body = "nas.nas1", b""
    headers: dict[str, Any] | None = None

    async def send(self, node: str, request: m.Request, request_id: str, deadline: Deadline) -> bool:
        properties = properties_of(correlation_id=request_id, user_id=self.user, headers=self.headers)
        for _ in range(2):
            self._mailbox._on_delivery(Delivery(1, "", "rpc-a", properties, self.body))
        return True


@pytest.fixture(scope="module")
def client() -> Answered:
    return Answered(Link("amqp://a:b@127.0.0.1/", name="a"), LIMITS)


@attacks(
    "messages", st.sampled_from(REQUESTS), BODIES, HEADERS, st.one_of(st.just("nas.nas1"), st.just("nas.nas1"), SHORT)
)
def test_replies_to_any_request(
    loop: Loop, client: Answered, request: dict[str, Any], body: bytes, headers, user: Any
) -> None:
    client.body, client.headers, client.user = body, headers, user

    loop.run(client.ask("nas1", m.decode_request(as_json(request)), deadline=Deadline.after(0.05)), within_s=10)


@attacks("messages", values(OTHERS))
def test_errors_from_the_wire(reply: Any) -> None:
    if isinstance(reply, dict):
        json.dumps(from_wire(reply).to_wire())


class Forger(Cloud):
    """NAS agents and hosts whose replies are changed on their way."""

    def __init__(self, cloud: Cloud, done: list[Step], which: int) -> None:
        self.__dict__.update(cloud.__dict__)
        self._done, self._which, self._count = done, which, 0

    async def ask(self, node: str, request: m.Request, **how: Any) -> m.Reply:
        reply = await super().ask(node, request, **how)
        self._count += 1
        if self._count != self._which:
            return reply
        document = changed_value(json.loads(m.encode(reply)), self._done)
        if not isinstance(document, dict):
            raise ProtocolError("the reply is no JSON object")
        if document.get("status") != "success":
            raise from_wire(document)
        return m.decode_reply(document, type(reply))


class Forging(World):
    """The world of the actions, with such agents."""

    def __init__(self, world: World, done: list[Step], which: int) -> None:
        self.__dict__.update(world.__dict__)
        self._done, self._which = done, which

    def cloud(self) -> Cloud:
        return Forger(super().cloud(), self._done, self._which)


DONE = steps("drop", "replace", "replace", "rename", "add", "swap", "double", most=2)


@attacks("messages", st.sampled_from(CALLS), DONE, st.integers(1, 3), st.booleans(), share=2.0)
def test_actions_whose_agents_answer_otherwise(
    loop: Loop, tools, world: World, call: Given, done, which: int, asks: bool
) -> bool:
    tools.say("", "no", 1)

    return run(
        loop,
        Forging(world, done, which),
        call.release,
        call.call(call.document.encode(), call.argv),
        Shown() if asks else None,
        undoes=False,
    )
