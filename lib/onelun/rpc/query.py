"""One request that may be done twice, from its caller's side: asked again until there is an answer."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from onelun.deadline import Deadline
from onelun.errors import NoReply, Unreachable
from onelun.rpc.call import LOOK_S, Wire, final_letter
from onelun.rpc.mailbox import Inbox, Letter
from onelun.rpc.message import Hello, name_of
from onelun.rpc.schema import Request


class Query:
    """A request to `inbox.node` that only reads, or may be done twice: a try that is lost needs no explanation."""

    def __init__(self, wire: Wire, inbox: Inbox, request: Request, deadline: Deadline) -> None:
        self._wire = wire
        self._inbox = inbox
        self._node = inbox.node
        self._action = name_of(type(request))
        self._request = request
        self._deadline = deadline
        self._accept_s = wire.limits.accept_s
        self._perhaps = False  # a try may have been taken
        self._absent_since: float | None = None

    async def answer(self) -> dict[str, Any]:
        """The final reply to any of the tries, one every 2 x accept_s.

        Raises Unreachable when no try was taken; NoReply when the deadline is over, when the node hangs, or when it may
        have taken a try and then was away for 4 x accept_s.
        """
        while True:
            await self._send()
            again_at = self._deadline.earlier(2 * self._accept_s)
            try:
                letter = await self._letter(again_at)
            except TimeoutError:
                # No answer to this try, which may have died with an earlier life of the agent.
                continue
            if letter is not None:
                return letter

    async def _send(self) -> None:
        """Get a try into the node's queue, or one that may be there."""
        while True:
            began = time.monotonic()
            try:
                await self._wire.send(
                    self._node, self._request, self._inbox.request_id, self._deadline.earlier(2 * self._accept_s)
                )
            except Unreachable as error:
                if not self._perhaps:
                    raise
                self._bear(began, error)
            else:
                self._perhaps, self._absent_since = True, None
                return
            await asyncio.sleep(min(LOOK_S, self._deadline.left_s()))

    def _bear(self, began: float, error: Unreachable) -> None:
        """Decide whether to go on trying a node that is away since `began` at the latest."""
        self._absent_since = began if self._absent_since is None else self._absent_since
        absent_s = time.monotonic() - self._absent_since
        if absent_s >= 4 * self._accept_s or self._deadline.over():
            raise NoReply(
                f"{self._node} may have got {self._action}, but was not there for {absent_s:.0f} s: {error}",
                node=self._node,
            ) from error

    async def _letter(self, again_at: Deadline) -> Letter:
        """The answer by `again_at`; None when it is known to be lost. Raises TimeoutError; NoReply when the node hangs."""
        last = self._deadline.left_s() <= self._accept_s
        try:
            return await final_letter(self._inbox, again_at.earlier(self._accept_s))
        except TimeoutError:
            if last:
                raise self._late() from None
        try:
            # A node that works on something slow still says who it is; one that does not hangs.
            await self._wire.query(self._node, Hello(), self._deadline.earlier(self._accept_s))
        except Unreachable:
            again_at = Deadline.after(0)
        except NoReply as error:
            try:
                return await final_letter(self._inbox, Deadline.after(0))
            except TimeoutError:
                if self._deadline.over():
                    raise self._late() from None
            raise NoReply(
                f"{self._node} is connected to the broker but hangs: it answered neither {self._action} nor hello within"
                f" {2 * self._accept_s:g} s",
                node=self._node,
            ) from error
        try:
            return await final_letter(self._inbox, again_at)
        except TimeoutError:
            if self._deadline.over():
                raise self._late() from None
            raise

    def _late(self) -> NoReply:
        return NoReply(f"{self._node} did not answer {self._action} in time", node=self._node)
