"""One request that is being worked on, as its handler sees it and as those who asked hear of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from onelun.deadline import Deadline
from onelun.errors import Cancelled, Interrupted, OnelunError
from onelun.rpc.channel import settle
from onelun.rpc.schema import Reply


class Asker(NamedTuple):
    """Who waits for an answer: the queue, what the answer refers to, and whether interim messages are wanted."""

    reply_to: str | None
    correlation_id: str | None
    interim: bool = False


class Job:
    """A request under way. Handlers use `id`, `caller`, `deadline` and `progress`.

    `caller` is the broker's user that asked, or None: a caller of the bare protocol does not say. `tell` sends an
    interim message to the askers that want it.
    """

    def __init__(
        self,
        job_id: str,
        *,
        action: str,
        caller: str | None,
        limit_s: float,
        progress_s: float = 5.0,
        tell: Callable[[Job, dict[str, object]], None] = lambda job, message: None,
        digest: bytes = b"",
        host: str | None = None,
    ) -> None:
        self.id = job_id
        self.action = action
        self.caller = caller
        self.limit_s = limit_s
        self.deadline = Deadline.after(limit_s)
        self.digest = digest
        self.host = host
        self.ending: asyncio.Future[OnelunError] = asyncio.get_running_loop().create_future()
        self._askers: dict[str | None, Asker] = {}
        self._progress_s = progress_s
        self._told_at = time.monotonic()
        self._tell = tell

    @property
    def askers(self) -> list[Asker]:
        """Everybody who waits for the final reply."""
        return list(self._askers.values())

    def add_asker(self, asker: Asker) -> None:
        """Let `asker` hear of the job too. Whoever asks again on the same queue is told once."""
        self._askers[asker.reply_to] = asker

    def progress(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Say that the work has moved on, `done` of `total` bytes or steps. Cheap: it is passed on only now and then."""
        now = time.monotonic()
        if now - self._told_at >= self._progress_s:
            self._told_at = now
            self._tell(self, {"status": "progress", "text": text, "done": done, "total": total})

    def cancel(self) -> None:
        """End the work because somebody asked for that. Repeating it changes nothing."""
        settle(self.ending, Cancelled(f"{self.action} was cancelled"))

    def interrupt(self) -> None:
        """End the work because the agent ends."""
        settle(self.ending, Interrupted(f"{self.action} was interrupted, because its agent was stopped: ask again"))

    def expire(self) -> None:
        """End the work because its time is over."""
        settle(self.ending, Cancelled(f"{self.action} was given up because it did not end within {self.limit_s:g} s"))


Handler = Callable[[Any, Job], Awaitable[Reply]]
