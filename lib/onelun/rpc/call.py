"""One journaled request, from its caller's side, until its outcome is known or certainly unknown."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from onelun.config import Limits
from onelun.deadline import Deadline
from onelun.errors import NoReply, OnelunError, Unreachable
from onelun.rpc.mailbox import Inbox, Letter
from onelun.rpc.message import BY_REQUEST, Cancel, Status, name_of
from onelun.rpc.schema import Request

# How long a caller that was told to stop waits for the end of what it asked for.
WITHDRAW_S = 5.0
# How often a node that is away is looked for.
LOOK_S = 0.5


class Wire(Protocol):
    """What a call needs of the client."""

    limits: Limits

    async def send(self, node: str, request: Request, request_id: str, deadline: Deadline) -> bool:
        """See Client.send."""

    async def query(self, node: str, request: Request, deadline: Deadline) -> dict[str, Any]:
        """See Client.query."""

    def withdraw(self, node: str, request_id: str) -> None:
        """See Client.withdraw."""


class Call:
    """One request to `inbox.node` under the id `inbox.request_id`."""

    def __init__(
        self,
        wire: Wire,
        inbox: Inbox,
        request: Request,
        deadline: Deadline,
        on_progress: Callable[[str], None] | None,
    ) -> None:
        self._wire = wire
        self._inbox = inbox
        self._node = inbox.node
        self._action = name_of(type(request))
        self._deadline = deadline
        self._on_progress = on_progress
        self._accept_by = deadline.earlier(wire.limits.accept_s)
        self._request = self._limited(request)
        self._perhaps = False  # the node may have the request
        self.copies = 0
        """How many times the request may have got into the node's queue."""
        self._accepted = False
        self._heard_at = time.monotonic()
        self._trouble: OnelunError | None = None  # why the node was not heard when it was asked last

    async def outcome(self) -> dict[str, Any]:
        """The final reply. Raises Unreachable or NoReply. Cancelled, it withdraws the request first."""
        try:
            await self._deliver()
            return await self._await_final()
        except asyncio.CancelledError:
            if self._perhaps:
                await self._withdraw()
            raise

    async def settled(self) -> dict[str, Any] | None:
        """What becomes of the request, though a copy of it was refused; None when no other was taken, nor ever will be.

        An agent keeps nothing of what it refuses for want of room or time, so that a second copy may start afterwards. Raises
        NoReply when the node does not tell. Cancelled, it withdraws the request first.
        """
        # From now on the node is asked, and nothing is sent again.
        self._accept_by = Deadline.after(0)
        try:
            while (reply := await self._look()) is None:
                letter = await self._await_final()
                # An error may be another copy's refusal.
                if letter.get("status") == "success":
                    return letter
        except Unreachable:
            return None
        except asyncio.CancelledError:
            await self._withdraw()
            raise
        return reply

    async def _deliver(self) -> None:
        """Get the request into the node's queue before the time to accept is over. The same id never starts twice."""
        while True:
            try:
                # A cancelled publish may have gone out as well.
                maybe, self._perhaps = self._perhaps, True
                try:
                    sent = await self._wire.send(self._node, self._request, self._inbox.request_id, self._accept_by)
                except Unreachable:
                    self._perhaps = maybe
                    raise
            except Unreachable:
                if not self._perhaps:
                    raise
                return
            self.copies += 1
            if sent or self._accept_by.over():
                return
            await asyncio.sleep(min(0.1, self._accept_by.left_s()))

    async def _await_final(self) -> dict[str, Any]:
        pause_s = self._accept_by.left_s()
        while True:
            try:
                letter = await self._inbox.get(min(pause_s, self._deadline.left_s()))
            except TimeoutError:
                letter = None
            if letter is not None:
                if is_final(letter):
                    return letter
                self._hear(letter)
            elif not self._accepted and not self._accept_by.over():
                # The reply queue was lost with the connection before the node took the request.
                await self._deliver()
                pause_s = self._accept_by.left_s()
                continue
            elif reply := await self._look():
                return reply
            # A node that was heard of may work in silence for a while; one that was not is looked for.
            heard = time.monotonic() - self._heard_at < LOOK_S
            pause_s = 3 * self._wire.limits.progress_s if heard else LOOK_S

    async def _look(self) -> dict[str, Any] | None:
        """Ask the node what became of the request; the final reply if there is one, None while it works or is away."""
        if self._deadline.over():
            self._wire.withdraw(self._node, self._inbox.request_id)
            raise NoReply(
                f"{self._action} on {self._node} did not end in time: its outcome is unknown"
                + (f", since {self._trouble}" if self._trouble else "")
            )
        try:
            status = await self._wire.query(
                self._node, Status(id=self._inbox.request_id), self._deadline.earlier(self._wire.limits.accept_s)
            )
        except (Unreachable, NoReply) as error:
            self._trouble = error
            self._bear(error)
            return None
        self._trouble = None
        return self._learn(status)

    def _learn(self, status: dict[str, Any]) -> dict[str, Any] | None:
        match status.get("state"), status.get("reply"):
            case "done", dict(reply):
                return reply
            case "running", _:
                self._accepted = True
                self._heard_at = time.monotonic()
                return None
            case "unknown", _ if not self._accepted:
                raise Unreachable(
                    f"{self._node} did not take {self._action} within {self._wire.limits.accept_s:g} s: nothing was changed"
                )
        raise NoReply(f"{self._node} took {self._action} and knows nothing of it any more: its outcome is unknown")

    def _bear(self, error: OnelunError) -> None:
        """Decide whether to go on asking a node that does not answer."""
        limits = self._wire.limits
        silent_s = time.monotonic() - self._heard_at
        if not self._accepted and isinstance(error, NoReply):
            # It is connected and hangs. Should it wake up, the request is too late to start, and cancelled.
            self._wire.withdraw(self._node, self._inbox.request_id)
            raise NoReply(
                f"{self._node} is connected to the broker but hangs: it did not take {self._action} within"
                f" {limits.accept_s:g} s and does not say whether it will; its outcome is unknown"
            ) from error
        # What was not accepted has no work to wait for; another look may take accept_s again.
        patience_s = limits.finish_s if self._accepted else 2 * limits.accept_s - LOOK_S
        if silent_s >= patience_s:
            raise NoReply(
                f"the outcome of {self._action} on {self._node} is unknown: not heard of for {silent_s:.0f} s, and {error}"
            ) from error

    def _hear(self, letter: dict[str, Any]) -> None:
        self._accepted = True
        self._heard_at = time.monotonic()
        if letter.get("status") == "progress" and self._on_progress:
            self._on_progress(_progress_text(letter))

    async def _withdraw(self) -> None:
        """Tell the node to end the work, and see it end if that is soon."""
        deadline = Deadline.after(WITHDRAW_S)
        with contextlib.suppress(OnelunError, TimeoutError):
            await self._wire.query(self._node, Cancel(id=self._inbox.request_id), deadline)
            await final_letter(self._inbox, deadline)

    def _limited(self, request: Request) -> Request:
        """The request with its limits: the agent's verdict should be here before our deadline is."""
        limits = self._wire.limits
        usual_s = limits.copy_s if BY_REQUEST[type(request)].copies else limits.finish_s
        left_s = self._deadline.left_s()
        return msgspec.structs.replace(
            request,
            start_within=request.start_within or limits.accept_s,
            finish_within=request.finish_within or min(usual_s, left_s - min(1.0, left_s / 10)),
        )


async def final_letter(inbox: Inbox, deadline: Deadline) -> Letter:
    """The next final reply, or None when the queue was lost. Raises TimeoutError."""
    while True:
        letter = await inbox.get(deadline.left_s())
        if letter is None or is_final(letter):
            return letter


def is_final(letter: dict[str, Any]) -> bool:
    """Whether a reply is the last one to its request."""
    return letter.get("status") in ("success", "error")


def _progress_text(letter: dict[str, Any]) -> str:
    text, done, total = str(letter.get("text") or ""), letter.get("done"), letter.get("total")
    if isinstance(done, int) and isinstance(total, int) and total > 0:
        return f"{text} {100 * done // total} %".lstrip()
    return text
