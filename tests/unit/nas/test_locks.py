"""Who works on which volume."""

import asyncio

import pytest

from onelun.errors import Busy, Cancelled
from onelun.nas.locks import Locks


async def _work(locks, log, name, *keys, shared=(), hold_s=0.01, go=None, **how):
    """Work that takes `hold_s`, or lasts until `go` is set."""
    async with locks.hold(*keys, shared=shared, **how):
        log.append(f"{name} in")
        await (go.wait() if go is not None else asyncio.sleep(hold_s))
        log.append(f"{name} out")


async def _in_line(locks, name, count):
    async with asyncio.timeout(60):
        while len(locks._lines.get(name, ())) != count:
            await asyncio.sleep(0)


async def test_work_on_one_volume_runs_in_order_of_arrival():
    locks, log = Locks(), []

    await asyncio.gather(*(_work(locks, log, str(n), "tank/a") for n in range(4)))

    assert log == [f"{n} {way}" for n in range(4) for way in ("in", "out")]
    assert not locks.held("tank/a")


async def test_two_volumes_taken_in_opposite_order_do_not_wait_for_each_other_for_ever():
    locks, log = Locks(), []

    async with asyncio.timeout(60):
        await asyncio.gather(
            *(_work(locks, log, "x", *keys, hold_s=0.001) for keys in [("a", "b"), ("b", "a")] for _ in range(20))
        )

    assert len(log) == 80


async def test_readers_share_and_a_writer_waits_for_them_and_holds_later_readers_back():
    locks, log = Locks(), []

    async def reader(name):
        await _work(locks, log, name, shared=("image",))

    await asyncio.gather(reader("r1"), reader("r2"), _work(locks, log, "w", "image"), reader("r3"))

    assert log[:2] == ["r1 in", "r2 in"]
    assert log.index("w in") > max(log.index("r1 out"), log.index("r2 out"))
    assert log.index("r3 in") > log.index("w out")


async def test_a_removal_ends_earlier_work_that_may_be_ended():
    locks, log = Locks(), []
    copy = asyncio.create_task(_work(locks, log, "copy", "a", hold_s=30, preemptible=True))
    waiting = asyncio.create_task(_work(locks, log, "map", "a", preemptible=True))
    await _in_line(locks, "a", 2)

    await _work(locks, log, "delete", "a", preempts=True)

    for ended in (copy, waiting):
        with pytest.raises(Cancelled, match="removal came"):
            await ended
    assert log == ["copy in", "delete in", "delete out"]


async def test_a_removal_waits_for_work_that_may_not_be_ended():
    locks, log, go = Locks(), [], asyncio.Event()
    finish = asyncio.create_task(_work(locks, log, "finish", "a", go=go))
    await _in_line(locks, "a", 1)

    delete = asyncio.create_task(_work(locks, log, "delete", "a", preempts=True))
    await _in_line(locks, "a", 2)
    go.set()
    await asyncio.gather(finish, delete)

    assert log == ["finish in", "finish out", "delete in", "delete out"]


async def test_a_removal_gives_up_on_work_that_does_not_end():
    locks = Locks(preempt_s=0.05)
    released = asyncio.Event()

    async def stuck():
        async with locks.hold("a", preemptible=True):
            while not released.is_set():
                try:
                    await released.wait()
                except asyncio.CancelledError:
                    continue

    work = asyncio.create_task(stuck())
    await _in_line(locks, "a", 1)

    with pytest.raises(Busy, match="did not end"):
        async with locks.hold("a", preempts=True):
            pass

    released.set()
    await work


async def test_a_cancelled_waiter_leaves_the_line():
    locks, log, go = Locks(), [], asyncio.Event()
    first, second, third = (
        asyncio.create_task(_work(locks, log, name, "a", go=go)) for name in ("first", "second", "third")
    )
    await _in_line(locks, "a", 3)

    second.cancel()
    await _in_line(locks, "a", 2)
    assert log == ["first in"]
    go.set()
    await asyncio.gather(first, third)

    assert second.cancelled()
    assert log == ["first in", "first out", "third in", "third out"]
