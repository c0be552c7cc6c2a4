"""Who works on which volume: first come, first served, shared or alone, and told to end when a removal comes.

Locks are taken in the order of their names, so two jobs on two volumes never wait for each other.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Mapping

from onelun.errors import Busy, Cancelled


class _Ticket:
    """One job's place in one line. `preemptible` work ends when a removal asks it to."""

    def __init__(self, *, alone: bool, preemptible: bool) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task: asyncio.Task[object] = task
        self.alone = alone
        self.preemptible = preemptible
        self.preempted = False
        self.turn = asyncio.Event()
        self.left = asyncio.Event()


class Locks:
    """The lines of all volumes of one agent."""

    def __init__(self, *, preempt_s: float = 10.0) -> None:
        self._lines: dict[str, deque[_Ticket]] = {}
        self._preempt_s = preempt_s

    @contextlib.asynccontextmanager
    async def hold(
        self, *alone: str, shared: tuple[str, ...] = (), preemptible: bool = False, preempts: bool = False
    ) -> AsyncIterator[None]:
        """Hold the names, `alone` or `shared`, for the body; wait for every earlier job that excludes this one.

        With `preempts`, earlier preemptible work on the `alone` names is ended first, and raises Cancelled. Raises Busy
        when it does not end in time. A shared name that is also held alone is held alone.
        """
        wanted: Mapping[str, bool] = {**dict.fromkeys(shared, False), **dict.fromkeys(alone, True)}
        if preempts:
            await self._preempt(alone)
        async with contextlib.AsyncExitStack() as held:
            for name in sorted(wanted):
                await held.enter_async_context(self._one(name, alone=wanted[name], preemptible=preemptible))
            yield

    def held(self, name: str) -> bool:
        """Whether anybody holds the name or waits for it."""
        return name in self._lines

    @contextlib.asynccontextmanager
    async def _one(self, name: str, *, alone: bool, preemptible: bool) -> AsyncIterator[None]:
        ticket = _Ticket(alone=alone, preemptible=preemptible)
        line = self._lines.setdefault(name, deque())
        line.append(ticket)
        self._call(name)
        try:
            await ticket.turn.wait()
            yield
        except asyncio.CancelledError:
            if not ticket.preempted:
                raise
            ticket.task.uncancel()
            raise Cancelled(f"the work on {name} was ended: its removal came") from None
        finally:
            line.remove(ticket)
            ticket.left.set()
            if line:
                self._call(name)
            else:
                del self._lines[name]

    def _call(self, name: str) -> None:
        """Give their turn to the first of the line, and to all who share with it up to the first who does not."""
        for place, ticket in enumerate(self._lines[name]):
            if ticket.alone and place > 0:
                return
            ticket.turn.set()
            if ticket.alone:
                return

    async def _preempt(self, names: tuple[str, ...]) -> None:
        earlier = [ticket for name in names for ticket in self._lines.get(name, ()) if ticket.preemptible]
        for ticket in earlier:
            ticket.preempted = True
            ticket.task.cancel()
        for ticket in earlier:
            try:
                await asyncio.wait_for(ticket.left.wait(), self._preempt_s)
            except TimeoutError:
                raise Busy(
                    f"earlier work on volume {names[0]} did not end within {self._preempt_s:g} s; try again later"
                ) from None
