"""Since when a process has been able to hear: what waited while it hung is as old as the hang."""

from __future__ import annotations

import asyncio
import time

BEAT_S = 0.25
# What the kernel and the broker had kept for us during a hang is read within this time of its end.
AFTERMATH_S = 1.0


class Pulse:
    """Beats on the event loop, and so notices when the loop stood still (a stopped process, a call that blocked).

    Limits count from receipt. A request that lay in our socket while we hung was received, for its caller, when the hang
    began: without this an agent that wakes up would start what its caller gave up long ago.
    """

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._deaf_from = 0.0
        self._deaf_until = 0.0

    async def beat(self) -> None:
        """Beat until cancelled."""
        while True:
            await asyncio.sleep(BEAT_S)
            self._notice(time.monotonic())
            self._last = time.monotonic()

    def received_at(self) -> float:
        """The earliest moment, on the monotonic clock, at which what is read now may have come."""
        now = time.monotonic()
        self._notice(now)
        if now - self._deaf_until < AFTERMATH_S:
            return self._deaf_from
        return now

    def _notice(self, now: float) -> None:
        if now - self._last > 4 * BEAT_S:
            # A second hang in the aftermath of one makes one long one.
            if self._last - self._deaf_until >= AFTERMATH_S:
                self._deaf_from = self._last
            self._deaf_until = now
