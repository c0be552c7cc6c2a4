"""Freezing a guest's filesystems, or pausing it, for the moment of a snapshot, where its host and its agent can."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from onelun.driver.running import Run
from onelun.ending import to_its_end
from onelun.errors import NoReply, OnelunError
from onelun.rpc.message import FreezeGuest, GuestFrozen, GuestThawed, ThawGuest

# A guest's writes stand still so long at most; Windows gives up freezing after 10 s anyway.
_HOLD_S = 20.0
_FREEZE_S = 25.0
_THAW_S = 15.0


class Freeze:
    """How it went: `missing` says why the guest was not still during the body, and is None when it was."""

    missing: str | None = "its host did not say"


@contextlib.asynccontextmanager
async def frozen(run: Run, agent: str, domain: str, *, pause: bool = False) -> AsyncIterator[Freeze]:
    """Have the guest frozen, or paused, during the body where that can be done; it goes on whatever happens.

    It is never an error that it cannot be frozen. The host thaws it by itself when nobody else does.
    """
    freeze = Freeze()
    asked = True
    request = FreezeGuest(domain=domain, hold_s=_HOLD_S, pause=pause)
    try:
        reply = await run.ask(agent, request, GuestFrozen, within_s=_FREEZE_S)
        freeze.missing = reply.missing
        asked = reply.missing is None
    except OnelunError as error:
        freeze.missing = error.sentence
        asked = isinstance(error, NoReply)
    except asyncio.CancelledError:
        await to_its_end(_thaw(run, agent, domain))
        raise
    try:
        yield freeze
    finally:
        if asked:
            held = await to_its_end(_thaw(run, agent, domain))
            if freeze.missing is None and not held:
                freeze.missing = f"it stood still for longer than {_HOLD_S:g} s and was let go before the end"


async def _thaw(run: Run, agent: str, domain: str) -> bool:
    try:
        return (await run.ask(agent, ThawGuest(domain=domain), GuestThawed, within_s=_THAW_S)).held
    except OnelunError as error:
        run.note(f"the host has to let the guest go on by itself: {error.sentence}")
        return False
