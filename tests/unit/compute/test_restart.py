"""What an agent finds of an earlier one, and what a NAS tells a host that is back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest

from onelun.errors import Conflict, Rejected
from onelun.rpc.message import ListDev, SyncZvols

if TYPE_CHECKING:
    from tests.unit.compute.conftest import Bench


@contextmanager
def opened(path: str) -> Iterator[None]:
    """A program on this host that has the device open."""
    with open(path, "rb"):
        yield


async def restart(bench: Bench) -> None:
    bench.agent.close()
    bench.agent = bench.new_agent()
    await bench.agent.start()


async def targets(bench: Bench) -> list[str]:
    return [row["target"] for row in (await bench.ask(ListDev())).body]


async def test_a_second_agent_of_a_state_directory_refuses(bench: Bench) -> None:
    with pytest.raises(Conflict, match="another compute agent"):
        await bench.new_agent().start()


async def test_a_restart_keeps_what_is_attached(bench: Bench) -> None:
    request = bench.offer(link=bench.disk())
    await bench.ask(request)
    before = (await bench.ask(ListDev())).body

    await restart(bench)

    assert (await bench.ask(ListDev())).body == before
    assert os.path.samefile(bench.disk(), bench.place / "one-1")


async def test_a_restart_connects_nothing(bench: Bench) -> None:
    request = bench.offer(link=bench.disk())
    await bench.ask(request)
    await bench.connector.disconnect(request.target)

    await restart(bench)

    assert await targets(bench) == []
    assert bench.names() == []


async def test_a_restart_takes_away_names_that_could_show_another_volume(bench: Bench) -> None:
    os.makedirs(bench.place / "dev/nas1/tank", exist_ok=True)
    os.symlink("/dev/loop9", bench.device("one-9"))

    await restart(bench)

    assert bench.names() == []


async def test_a_restart_makes_a_name_that_is_missing(bench: Bench) -> None:
    await bench.ask(bench.offer())
    os.unlink(bench.device())

    await restart(bench)

    assert os.path.samefile(bench.device(), bench.place / "one-1")


async def test_a_nas_connects_what_is_missing_and_drops_the_rest(bench: Bench) -> None:
    kept, missing, surplus = bench.offer("one-1"), bench.offer("one-2"), bench.offer("one-3", link=bench.disk(3))
    await bench.ask(kept)
    await bench.ask(surplus)

    reply = await bench.ask(
        SyncZvols(nas="nas1", held=(bench.held(kept), bench.held(missing, bench.disk(1), bench.disk(2))))
    )

    assert (reply.connected, reply.dropped, reply.failed) == ((missing.target,), (surplus.target,), {})
    assert set(await targets(bench)) == {kept.target, missing.target}
    assert os.readlink(bench.disk(1)) == os.readlink(bench.disk(2)) == bench.device("one-2")
    assert not os.path.lexists(bench.disk(3))


async def test_what_another_nas_has_is_left_alone(bench: Bench) -> None:
    other = bench.offer("one-1", nas="nas2")
    await bench.ask(other)

    reply = await bench.ask(SyncZvols(nas="nas1", held=()))

    assert reply.dropped == ()
    assert await targets(bench) == [other.target]


async def test_what_the_nas_has_fenced_goes_also_while_it_is_open(bench: Bench) -> None:
    request = bench.offer(link=bench.disk())
    await bench.ask(request)

    with opened(bench.device()):
        reply = await bench.ask(SyncZvols(nas="nas1", held=(), fenced=(request.target,)))

    assert reply.dropped == (request.target,)
    assert await targets(bench) == bench.names() == []


async def test_a_surplus_that_is_open_stays_and_is_told(bench: Bench) -> None:
    surplus, other = bench.offer("one-1"), bench.offer("one-2")
    await bench.ask(surplus)

    with opened(bench.device()):
        reply = await bench.ask(SyncZvols(nas="nas1", held=(bench.held(other),)))

    assert "in use" in reply.failed[surplus.target]
    assert (reply.connected, reply.dropped) == ((other.target,), ())
    assert set(await targets(bench)) == {surplus.target, other.target}


async def test_one_failure_does_not_stop_the_others(bench: Bench) -> None:
    good, absent, wrong = bench.offer("one-1"), bench.offer("one-2"), bench.offer("one-3")
    del bench.targets[absent.target]

    reply = await bench.ask(
        SyncZvols(
            nas="nas1",
            held=(
                bench.held(absent),
                bench.held(msgspec.structs.replace(wrong, zpool="../..")),
                bench.held(good, bench.disk(), "/etc/passwd"),
                bench.held(bench.offer("one-4")),
            ),
        )
    )

    assert set(reply.failed) == {good.target, absent.target, wrong.target}
    assert reply.connected == (bench.offer("one-4").target,)
    assert len(await targets(bench)) == 1


async def test_a_dead_device_is_made_anew(bench: Bench) -> None:
    request = bench.offer(link=bench.disk())
    await bench.ask(request)
    os.rename(bench.place / "one-1", bench.place / "aside")
    assert [row["alive"] for row in (await bench.ask(ListDev())).body] == [False]
    await restart(bench)
    assert not os.path.lexists(bench.device())
    os.rename(bench.place / "aside", bench.place / "one-1")

    reply = await bench.ask(SyncZvols(nas="nas1", held=(bench.held(request, bench.disk()),)))

    assert reply.failed == {}
    assert os.path.samefile(bench.disk(), bench.place / "one-1")


async def test_a_nas_whose_name_cannot_be_is_rejected(bench: Bench) -> None:
    with pytest.raises(Rejected):
        await bench.ask(SyncZvols(nas="../nas", held=()))
