from __future__ import annotations

import asyncio
import time

from onelun.rpc.pulse import AFTERMATH_S, Pulse


async def test_what_comes_to_a_loop_that_runs_is_received_now():
    pulse = Pulse()
    beating = asyncio.create_task(pulse.beat())
    await asyncio.sleep(0.6)

    age_s = time.monotonic() - pulse.received_at()

    beating.cancel()
    assert age_s < 0.1


async def test_what_is_read_after_a_hang_is_as_old_as_the_hang():
    pulse = Pulse()
    beating = asyncio.create_task(pulse.beat())
    await asyncio.sleep(0.3)

    time.sleep(1.5)  # noqa: ASYNC251 - the hang
    at_once_s = time.monotonic() - pulse.received_at()
    await asyncio.sleep(0.3)
    soon_after_s = time.monotonic() - pulse.received_at()
    await asyncio.sleep(AFTERMATH_S)
    later_s = time.monotonic() - pulse.received_at()

    beating.cancel()
    assert at_once_s >= 1.5
    assert soon_after_s >= 1.8
    assert later_s < 0.1
