"""Steps that come to their end although who waits for them is cancelled: half of one would be worse than all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

_Result = TypeVar("_Result")

STUCK_S = 10.0
"""A step of a cancelled caller ends within this, or is stuck in the kernel and left to it."""


async def to_its_end(
    step: Awaitable[_Result], *, wait_s: float | None = STUCK_S, hurry: Callable[[], object] | None = None
) -> _Result:
    """The result of `step`, which nothing that happens to the caller breaks off. Raises what the step raises.

    A cancelled caller is held until the step has ended, so that nothing goes on behind it, but no longer than `wait_s`
    (None: as long as it takes) and not when it is cancelled once more: then the step goes on alone. How it ends is
    nobody's business any more, an error neither. `hurry` is called when the caller is cancelled, for a step that can
    give up early by itself.

    A lock that the step needs is the step's to release, or its callback's: the caller may be gone before the step has ended.
    """
    running = asyncio.ensure_future(step)
    try:
        # Not wait_for, nor gather: both would pass the cancelling on.
        await asyncio.wait([running])
    except asyncio.CancelledError:
        # Else asyncio logs an error that nobody asked for.
        running.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        if hurry is not None:
            hurry()
        await asyncio.wait([running], timeout=wait_s)
        raise
    return running.result()
