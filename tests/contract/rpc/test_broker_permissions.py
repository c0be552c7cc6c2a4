"""Each role on a real broker, tried against what it may do and what it may not (docs/protocol.md has the table)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from tests.support.raw import EXCHANGE, Raw


class Roles:
    """One raw connection per broker user, and the queues of two agents that are there."""

    def __init__(self, urls: dict[str, str]) -> None:
        self._stack = contextlib.ExitStack()
        self.frontend = self._stack.enter_context(Raw(urls["frontend"]))
        self.nas1 = self._stack.enter_context(Raw(urls["nas.nas1"]))
        self.node1 = self._stack.enter_context(Raw(urls["compute.node1"]))
        self.node2 = self._stack.enter_context(Raw(urls["compute.node2"]))
        for role, name in ((self.nas1, "nas1"), (self.node1, "node1")):
            role.channel.queue_declare(name, exclusive=True)
            role.channel.queue_bind(name, EXCHANGE, name)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="module")
def roles(urls: dict[str, str]) -> Iterator[Roles]:
    made = Roles(urls)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize(
    ("role", "exchange", "key", "outcome"),
    [
        ("frontend", EXCHANGE, "nas1", "routed"),
        ("frontend", EXCHANGE, "node1", "routed"),
        ("frontend", EXCHANGE, "nowhere", "unroutable"),
        ("frontend", "", "nas1", "403"),
        ("frontend", "amq.topic", "nas1", "403"),
        ("nas1", EXCHANGE, "node1", "routed"),
        ("nas1", EXCHANGE, "node2", "unroutable"),
        ("nas1", EXCHANGE, "nas2", "403"),
        ("nas1", EXCHANGE, "node11", "403"),
        ("nas1", "", "rpc-gone", "unroutable"),
        ("nas1", "amq.topic", "node1", "403"),
        ("node1", EXCHANGE, "nas1", "403"),
        ("node1", EXCHANGE, "node2", "403"),
        ("node1", EXCHANGE, "node1", "403"),
        ("node1", "", "rpc-gone", "unroutable"),
        # This passes, since replies need it: agents take nothing from the default exchange (tested below).
        ("node1", "", "nas1", "routed"),
    ],
)
def test_a_role_publishes_only_where_it_may(roles: Roles, role: str, exchange: str, key: str, outcome: str):
    assert getattr(roles, role).outcome(exchange, key) == outcome


@pytest.mark.parametrize(
    ("role", "method", "arguments", "outcome"),
    [
        ("frontend", "queue_declare", {"queue": "nas1"}, "403"),
        ("frontend", "queue_declare", {"queue": ""}, "ok"),
        ("nas1", "queue_declare", {"queue": "nas2", "exclusive": True}, "403"),
        ("nas1", "queue_bind", {"queue": "nas1", "exchange": EXCHANGE, "routing_key": "#"}, "403"),
        ("nas1", "queue_bind", {"queue": "nas1", "exchange": EXCHANGE, "routing_key": "node1"}, "403"),
        ("nas1", "exchange_delete", {"exchange": EXCHANGE}, "403"),
        ("node1", "queue_declare", {"queue": "rpc-mine", "exclusive": True}, "403"),
        ("node1", "queue_declare", {"queue": "node2", "exclusive": True}, "403"),
        ("node1", "queue_bind", {"queue": "node1", "exchange": EXCHANGE, "routing_key": "#"}, "403"),
        ("node1", "queue_bind", {"queue": "node1", "exchange": EXCHANGE, "routing_key": "nas1"}, "403"),
        ("node1", "queue_bind", {"queue": "node1", "exchange": EXCHANGE, "routing_key": "node1"}, "ok"),
        ("node1", "basic_get", {"queue": "nas1"}, "403"),
        ("node1", "queue_purge", {"queue": "nas1"}, "403"),
        ("node1", "queue_delete", {"queue": "nas1"}, "403"),
        ("node1", "exchange_declare", {"exchange": EXCHANGE, "exchange_type": "topic", "durable": True}, "403"),
        ("node2", "queue_declare", {"queue": "node1", "exclusive": True}, "403"),
    ],
)
def test_a_role_declares_and_reads_only_what_is_its_own(
    roles: Roles, role: str, method: str, arguments: dict[str, object], outcome: str
):
    assert getattr(roles, role).attempt(method, **arguments) == outcome


def test_a_second_connection_cannot_take_an_agents_queue(roles: Roles, urls: dict[str, str]):
    with Raw(urls["nas.nas1"]) as second:
        assert second.attempt("queue_declare", queue="nas1", exclusive=True) == "405"


def test_a_forged_user_id_is_refused(roles: Roles):
    assert roles.node1.outcome("", "nas1", user_id="frontend") == "406"
