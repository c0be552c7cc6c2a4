"""A step comes to its end although who waits for it is cancelled."""

import asyncio
import gc

import pytest

from onelun.ending import to_its_end
from onelun.errors import Busy


class Step:
    """It has begun, may end when it is told to, and has ended or was broken off."""

    def __init__(self, error=None):
        self.begun, self.go, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.broken_off = False
        self._error = error

    async def __call__(self):
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.broken_off = True
            raise
        self.ended.set()
        if self._error is not None:
            raise self._error
        return 7


@pytest.fixture(autouse=True)
async def _limit():
    async with asyncio.timeout(60):
        yield


async def _few_turns():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_result_is_the_steps():
    step = Step()
    step.go.set()

    assert await to_its_end(step()) == 7


async def test_the_error_is_the_steps():
    step = Step(Busy("in use"))
    step.go.set()

    with pytest.raises(Busy, match="in use"):
        await to_its_end(step())


async def test_a_cancelled_caller_is_held_until_the_step_has_ended():
    step = Step()
    caller = asyncio.create_task(to_its_end(step(), wait_s=None))
    await step.begun.wait()

    caller.cancel()
    await _few_turns()
    assert not caller.done()
    step.go.set()

    with pytest.raises(asyncio.CancelledError):
        await caller
    assert step.ended.is_set()


@pytest.mark.parametrize(
    "again", [False, True], ids=["when it takes too long", "when the caller is cancelled once more"]
)
async def test_a_step_is_left_to_itself_and_not_broken_off(again):
    step = Step()
    caller = asyncio.create_task(to_its_end(step(), wait_s=None if again else 0.01))
    await step.begun.wait()

    caller.cancel()
    if again:
        await _few_turns()
        caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller

    assert not step.ended.is_set()
    step.go.set()
    await step.ended.wait()
    assert not step.broken_off


async def test_the_error_of_a_cancelled_callers_step_is_nobodys():
    said = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context["message"]))
    step = Step(Busy("in use"))
    caller = asyncio.create_task(to_its_end(step()))
    await step.begun.wait()

    caller.cancel()
    step.go.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    del step
    gc.collect()
    await _few_turns()

    assert said == []


async def test_only_the_step_of_a_cancelled_caller_is_asked_to_hurry():
    quick, slow = Step(), Step()
    quick.go.set()

    assert await to_its_end(quick(), hurry=pytest.fail) == 7
    caller = asyncio.create_task(to_its_end(slow(), hurry=slow.go.set))
    await slow.begun.wait()
    caller.cancel()

    with pytest.raises(asyncio.CancelledError):
        await caller
    assert slow.ended.is_set()


async def test_a_step_that_was_itself_cancelled_cancels_its_caller():
    step = Step()
    running = asyncio.ensure_future(step())
    caller = asyncio.create_task(to_its_end(running))
    await step.begun.wait()

    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await caller
    assert step.broken_off
