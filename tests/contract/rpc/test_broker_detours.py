"""Ways around the topic permissions by what a user may make under its own name: exchanges, their bindings, spare routes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest
from tests.support.raw import EXCHANGE, Raw

from .conftest import Agents, Nas

MAP = {"action": "map_zvol", "zvol": "one-1", "remotehost": "node1"}


def own_exchange(user: Raw, name: str, **arguments: object) -> str:
    return user.attempt("exchange_declare", name, "topic", auto_delete=True, arguments=arguments)


def test_a_nas_publishes_into_no_exchange_but_the_common_one_and_one_of_its_name(urls: dict[str, str]):
    with Raw(urls["nas.nas2"]) as intruder:
        made = own_exchange(intruder, "rpc-evil")
        outcome = intruder.outcome("rpc-evil", "nas1")
        intruder.attempt("exchange_delete", "rpc-evil")

    assert (made, outcome) == ("ok", "403")


@pytest.mark.parametrize(
    ("role", "made"), [("nas.nas2", "rpc-evil"), ("compute.node1", "node1"), ("frontend", "rpc-evil")]
)
@pytest.mark.parametrize("key", ["#", "*", "nas1", "node2"])
def test_nobody_listens_to_others_through_an_exchange_of_its_own(urls: dict[str, str], role: str, made: str, key: str):
    with Raw(urls[role]) as intruder:
        own_exchange(intruder, made)
        outcome = intruder.attempt("exchange_bind", made, EXCHANGE, key)
        intruder.attempt("exchange_delete", made)

    assert outcome == "403"


@pytest.mark.parametrize("role", ["compute.node1", "compute.node2"])
def test_a_host_leads_no_exchange_into_the_common_one(urls: dict[str, str], role: str):
    name = role.partition(".")[2]
    with Raw(urls[role]) as intruder:
        made = own_exchange(intruder, name)
        outcomes = [
            intruder.attempt("exchange_bind", EXCHANGE, name, "#"),
            own_exchange(intruder, name, **{"alternate-exchange": EXCHANGE}),
            intruder.attempt("queue_declare", name, exclusive=True, arguments={"x-dead-letter-exchange": EXCHANGE}),
        ]
        intruder.attempt("exchange_delete", name)

    assert made == "ok"
    # The second one exists already, with other arguments.
    assert outcomes == ["403", "406", "403"]


@pytest.mark.parametrize("role", ["compute.node1", "compute.node2"])
def test_a_host_makes_no_exchange_with_a_spare_route_into_the_common_one(urls: dict[str, str], role: str):
    with Raw(urls[role]) as intruder:
        assert own_exchange(intruder, role.partition(".")[2], **{"alternate-exchange": EXCHANGE}) == "403"


def bound(intruder: Raw, name: str) -> list[str]:
    return [own_exchange(intruder, name), intruder.attempt("exchange_bind", EXCHANGE, name, "#")]


def spare(intruder: Raw, name: str) -> list[str]:
    return [own_exchange(intruder, name, **{"alternate-exchange": EXCHANGE})]


@pytest.mark.parametrize("detour", [bound, spare])
async def test_what_a_nas_sends_another_by_a_detour_is_dropped(
    agents: Agents, urls: dict[str, str], detour: Callable[[Raw, str], list[str]]
):
    await agents.agent(nas := Nas())
    name = "nas2"

    with Raw(urls["nas.nas2"]) as intruder, Raw(urls["frontend"]) as caller:
        made = await asyncio.to_thread(detour, intruder, name)
        outcome = await asyncio.to_thread(intruder.outcome, name, "nas1", json.dumps(MAP).encode())
        await asyncio.to_thread(caller.ask, "nas1", MAP | {"zvol": "one-2"})
        await asyncio.to_thread(intruder.attempt, "exchange_delete", name)

    # The broker lets it pass: the agent sees by which exchange it came.
    assert set(made) == {"ok"}
    assert outcome == "routed"
    assert nas.done == ["one-2"]
