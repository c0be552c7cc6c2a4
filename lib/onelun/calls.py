"""Calls that the kernel may never come back from, made by a process that can be left behind.

To start a process for each takes longer than most of the calls themselves; so those that are idle are kept for the next one.
A call that does not come back in time takes its process with it: it is killed, and left to the kernel when it does not die.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

import msgspec

from onelun import caller, command
from onelun.errors import CommandFailed

log = logging.getLogger(__name__)

# So many calls of one agent are under way at once in quiet times; more processes end when they have nothing to do.
_KEPT = 2
# One that had nothing to do for so long ends: an agent needs it for a disk now and then.
_IDLE_S = 15.0


class Calls:
    """Makes calls, each in a process that makes no other one meanwhile. For one event loop."""

    def __init__(self) -> None:
        self._idle: list[command.Pipe] = []

    async def make(self, program: str, *args: str, timeout_s: float, called: str) -> str:
        """What `call(*args)` returns of the module in the file `program`, which uses the standard library alone.

        Raises the call's own OSError, with its errno; CommandFailed, about the call named `called`, when it does not end
        within `timeout_s` or fails otherwise. Cancelled, it kills the process.
        """
        while True:
            kept = bool(self._idle)
            worker = self._idle.pop() if kept else await _started()
            try:
                async with asyncio.timeout(timeout_s):
                    told = await _asked(worker, program, *args)
            except TimeoutError:
                await worker.end()
                raise CommandFailed(f"{called} did not end within {timeout_s:g} s", command=called) from None
            except (OSError, EOFError) as error:
                await worker.end()
                if kept:
                    # It ended while it was idle; each call may be repeated.
                    continue
                raise CommandFailed(f"{called} failed: its process ended", command=called) from error
            except BaseException:
                await worker.end()
                raise
            break
        log.debug("call what=%s", called)
        if len(self._idle) < _KEPT:
            self._idle.append(worker)
        else:
            await worker.end()
        if "errno" in told:
            raise OSError(told["errno"], told["failed"])
        if "failed" in told:
            log.error("call program=%s failed=%s", program, told["place"])
            raise CommandFailed(f"{called} failed: {told['failed']}", command=called)
        return str(told["out"])

    async def close(self) -> None:
        """End the idle processes. They would end with this one anyway."""
        while self._idle:
            await self._idle.pop().end()


async def _started() -> command.Pipe:
    return await command.pipe(sys.executable, "-I", "-S", caller.__file__, str(_IDLE_S))


async def _asked(worker: command.Pipe, *request: str) -> dict[str, Any]:
    """Raises EOFError, OSError when the process ended."""
    stdin, stdout = worker.process.stdin, worker.process.stdout
    assert stdin is not None
    assert stdout is not None
    body = msgspec.json.encode(request)
    stdin.write(len(body).to_bytes(caller.LENGTH, "big") + body)
    await stdin.drain()
    # IncompleteReadError is an EOFError.
    length = int.from_bytes(await stdout.readexactly(caller.LENGTH), "big")
    told: dict[str, Any] = msgspec.json.decode(await stdout.readexactly(length))
    return told
