from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from onelun.rpc import pulse as module
from onelun.rpc.pulse import AFTERMATH_S, Pulse


class Clock:
    """Stands where `time` and `asyncio` do: its time goes by only when the test says so."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def monotonic(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        self._sleepers.append((self._now + seconds, woken))
        await woken.wait()

    async def passes(self, seconds: float) -> None:
        """Time goes by, and who sleeps is woken in time."""
        for _ in range(round(seconds / 0.05)):
            await self.hangs(0.05)

    async def hangs(self, seconds: float) -> None:
        """Time goes by at once; who should have been woken meanwhile is woken afterwards."""
        self._now += seconds
        for due, woken in self._sleepers:
            if due <= self._now:
                woken.set()
        self._sleepers = [(due, woken) for due, woken in self._sleepers if not woken.is_set()]
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    monkeypatch.setattr(module, "asyncio", made)
    return made


@pytest.fixture
async def pulse(clock: Clock) -> AsyncIterator[Pulse]:
    made = Pulse()
    beating = asyncio.create_task(made.beat())
    await clock.passes(0.6)
    yield made
    beating.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await beating


async def test_what_comes_to_a_loop_that_runs_is_received_now(clock: Clock, pulse: Pulse):
    assert pulse.received_at() == clock.monotonic()


async def test_what_is_read_after_a_hang_is_as_old_as_the_hang(clock: Clock, pulse: Pulse):
    clock._now += 1.5
    at_once_s = clock.monotonic() - pulse.received_at()
    await clock.passes(0.3)
    soon_after_s = clock.monotonic() - pulse.received_at()
    await clock.passes(AFTERMATH_S)
    later_s = clock.monotonic() - pulse.received_at()

    assert at_once_s >= 1.5
    assert soon_after_s >= 1.8
    assert later_s == 0.0
