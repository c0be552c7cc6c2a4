"""LVM's commands one at a time, readings that are shared, and what the kernel's and thin_ls's lists mean."""

import asyncio
from functools import partial

import pytest

from onelun.ending import to_its_end
from onelun.errors import ProtocolError
from onelun.nas.backends.lvm import tool
from onelun.nas.backends.lvm.devices import PoolStatus, read_status
from onelun.nas.backends.lvm.tool import Lvm, Shared
from onelun.nas.backends.lvm.usage import Taken, parsed

POOLS = """\
vg0-pool: 0 4194304 thin-pool 0 420/4096 0/32768 - rw no_discard_passdown queue_if_no_space - 1024
vg1-pool-tpool: 0 4194304 thin-pool 7 421/4096 100/32768 358 rw discard_passdown error_if_no_space - 1024
vg2-pool-tpool: 0 4194304 thin-pool 7 421/4096 100/32768 - ro discard_passdown queue_if_no_space - 1024
vg3-pool-tpool: 0 4194304 thin-pool 7 421/4096 100/32768 - ro discard_passdown queue_if_no_space needs_check 1024
vg4-pool-tpool: 0 4194304 thin-pool 7 421/4096 32768/32768 - out_of_data_space discard_passdown queue_if_no_space - 1024
vg5-pool: 0 4194304 thin-pool Fail
vg6-pool: 0 4194304 thin-pool Error
"""


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("vg0-pool", PoolStatus("vg0-pool", 420, 4096, 0, 32768)),
        ("vg1-pool", PoolStatus("vg1-pool-tpool", 421, 4096, 100, 32768, held=True)),
        ("vg2-pool", PoolStatus("vg2-pool-tpool", 421, 4096, 100, 32768, "is read-only")),
        ("vg3-pool", PoolStatus("vg3-pool-tpool", 421, 4096, 100, 32768, "needs its metadata checked")),
        ("vg4-pool", PoolStatus("vg4-pool-tpool", 421, 4096, 32768, 32768)),
        ("vg5-pool", PoolStatus("vg5-pool", wrong="has failed")),
        ("vg6-pool", PoolStatus("vg6-pool", wrong="has failed")),
        ("vg-pool", None),
        ("vg1-pool-t", None),
    ],
)
def test_the_kernel_tells_how_full_a_pool_is_and_what_is_wrong_with_it(name, status):
    assert read_status(POOLS, name) == status


def test_a_machine_without_thin_pools_has_none():
    assert read_status("", "vg0-pool") is None
    assert read_status("No devices found\n", "vg0-pool") is None


def test_what_thin_ls_prints_is_read_whole():
    assert parsed("  1  1048576  65536\n 12 0 0\n") == {"1": Taken(1048576, 65536), "12": Taken(0, 0)}
    assert parsed("") == {}
    with pytest.raises(ProtocolError):
        parsed("metadata contains errors\n")


class Reading:
    """Something that is read, slowly, and counts how often."""

    def __init__(self):
        self.begun = 0
        self.running = 0
        self.go = asyncio.Event()

    async def __call__(self):
        self.begun += 1
        self.running += 1
        assert self.running == 1
        number = self.begun
        await self.go.wait()
        self.running -= 1
        return number


async def test_a_reading_is_shared_by_those_who_asked_before_it_began():
    reading = Reading()
    shared = Shared(reading)
    first = asyncio.create_task(shared.get())
    await until(lambda: reading.begun == 1)

    later = [asyncio.create_task(shared.get()) for _ in range(20)]
    await asyncio.sleep(0)
    reading.go.set()

    assert await first == 1
    assert await asyncio.gather(*later) == [2] * 20
    assert await shared.get() == 3


async def test_a_reading_goes_on_for_the_others_when_one_is_cancelled():
    reading = Reading()
    shared = Shared(reading)
    one, other = (asyncio.create_task(shared.get()) for _ in range(2))
    await until(lambda: reading.begun == 1)

    one.cancel()
    await asyncio.sleep(0)
    reading.go.set()

    assert await other == 1
    assert one.cancelled()


async def test_a_reading_that_failed_is_not_the_last():
    answers = iter([ProtocolError("broken"), 2])

    async def read():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    shared = Shared(read)

    outcomes = await asyncio.gather(shared.get(), shared.get(), return_exceptions=True)

    assert [str(outcome) for outcome in outcomes] == ["broken", "broken"]
    assert await shared.get() == 2


async def test_changes_run_one_at_a_time_and_a_begun_one_ends_when_its_caller_is_cancelled():
    lvm = Lvm("tank", "vg", udev_s=1.0)
    done = []
    began, go = asyncio.Event(), asyncio.Event()

    async def step(name):
        began.set()
        await go.wait()
        done.append(name)

    begun = asyncio.create_task(lvm.alone(lambda: step("begun")))
    waiting = asyncio.create_task(lvm.alone(lambda: step("waiting")))
    later = asyncio.create_task(lvm.alone(lambda: step("later")))
    await began.wait()
    await few_turns()
    begun.cancel()
    waiting.cancel()
    await few_turns()
    assert not begun.done()
    go.set()
    await asyncio.wait([begun, waiting, later], timeout=60)

    assert begun.cancelled()
    assert waiting.cancelled()
    assert done == ["begun", "later"]


async def test_a_change_that_takes_long_is_left_to_itself_and_not_killed(monkeypatch):
    monkeypatch.setattr(tool, "to_its_end", partial(to_its_end, wait_s=0.05))
    lvm = Lvm("tank", "vg", udev_s=1.0)
    done = []
    began, go = asyncio.Event(), asyncio.Event()

    async def step():
        began.set()
        await go.wait()
        done.append("step")

    async def after():
        done.append("after")

    begun = asyncio.create_task(lvm.alone(step))
    await began.wait()
    begun.cancel()
    await asyncio.wait([begun], timeout=60)
    later = asyncio.create_task(lvm.alone(after))
    await few_turns()

    assert begun.cancelled()
    assert done == []
    go.set()
    await asyncio.wait_for(later, 60)
    assert done == ["step", "after"]


async def test_a_change_that_failed_lets_the_next_one_run():
    lvm = Lvm("tank", "vg", udev_s=1.0)

    async def fail():
        raise ProtocolError("broken")

    async def succeed():
        return 7

    with pytest.raises(ProtocolError):
        await lvm.alone(fail)
    assert await lvm.alone(succeed) == 7


async def few_turns():
    for _ in range(20):
        await asyncio.sleep(0)


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0)
