"""The order in which a host connects and lets go (seen by the logging double)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from tests.support import recording

from onelun.errors import CommandFailed, Unreachable
from onelun.rpc.message import GrowDev, SyncZvols, TearDown

if TYPE_CHECKING:
    from tests.unit.compute.conftest import Bench


@pytest.fixture
async def log(bench: Bench) -> recording.Log:
    """What the agent does with its connector, and what a VM sees at each step: the lasting names, and its disk."""
    log = recording.Log(lambda: {"names": bench.names()[-1:], "disk": os.path.lexists(bench.disk())})
    bench.connector = recording.connector(bench.connector, log)
    bench.agent.close()
    bench.agent = bench.new_agent()
    await bench.agent.start()
    return log


def seen(log: recording.Log, action: str) -> Any:
    (entry,) = log.logs_like(action)
    return entry["seen"]


async def test_a_device_is_connected_before_it_has_a_name_and_a_link(bench: Bench, log: recording.Log) -> None:
    await bench.ask(bench.offer(link=bench.disk()))

    assert log.actions() == ["connector.connect"]
    assert seen(log, "connector.connect") == {"names": [], "disk": False}
    assert os.path.exists(bench.disk())


async def test_a_name_goes_before_its_device_and_a_link_after(bench: Bench, log: recording.Log) -> None:
    request = bench.offer(link=bench.disk())
    await bench.ask(request)
    log.clear_logs()

    await bench.ask(TearDown(target=request.target, link=bench.disk()))

    assert log.actions() == ["connector.disconnect"]
    assert seen(log, "connector.disconnect") == {"names": [], "disk": True}
    assert not os.path.lexists(bench.disk())


async def test_the_earlier_epoch_goes_before_the_next_is_connected(bench: Bench, log: recording.Log) -> None:
    first = bench.offer(epoch=1)
    await bench.ask(first)
    log.clear_logs()

    second = bench.offer(epoch=2)
    await bench.ask(second)

    assert log.actions() == ["connector.disconnect", "connector.connect"]
    assert log.logs_like("connector.disconnect", iqn=first.target)
    assert log.logs_like("connector.connect")[0]["export"].iqn == second.target


async def test_what_could_not_be_connected_is_let_go_of(bench: Bench, log: recording.Log) -> None:
    log.fail("connector.connect", Unreachable("no route"), after=True)

    with pytest.raises(Unreachable):
        await bench.ask(bench.offer(link=bench.disk()))

    assert log.actions() == ["connector.connect", "connector.disconnect"]
    assert await bench.connector.connections() == []
    assert not os.path.lexists(bench.disk())


async def test_a_flush_that_fails_leaves_name_and_link(bench: Bench, log: recording.Log) -> None:
    request = bench.offer(link=bench.disk())
    await bench.ask(request)
    log.fail("connector.disconnect", CommandFailed("cannot flush"))

    with pytest.raises(CommandFailed):
        await bench.ask(TearDown(target=request.target, link=bench.disk()))

    assert os.path.samefile(bench.disk(), bench.place / "one-1")


async def test_what_a_nas_does_not_hold_any_more_goes_before_what_it_holds_comes(
    bench: Bench, log: recording.Log
) -> None:
    await bench.ask(bench.offer("one-1"))
    held = bench.held(bench.offer("one-2"))
    log.clear_logs()

    await bench.ask(SyncZvols(nas="nas1", held=(held,)))

    assert log.actions() == ["connector.disconnect", "connector.connect"]


async def test_a_device_grows_without_being_let_go_of(bench: Bench, log: recording.Log) -> None:
    request = bench.offer(link=bench.disk())
    await bench.ask(request)
    os.truncate(bench.place / "one-1", 2 << 20)
    log.clear_logs()

    await bench.ask(GrowDev(target=request.target, size_bytes=2 << 20))

    assert log.actions() == ["connector.grow"]
    assert seen(log, "connector.grow")["disk"]
