"""Asking agents on behalf of one action: the ids of its requests, and the one place where a request is tried again."""

from __future__ import annotations

import asyncio
import logging
import uuid as uuids
from collections import Counter
from collections.abc import Callable
from typing import Protocol, TypeVar

from onelun.deadline import Deadline
from onelun.errors import Busy, Cancelled, Interrupted, ProtocolError, Unreachable
from onelun.rpc.message import encode, name_of
from onelun.rpc.schema import Reply, Request

log = logging.getLogger(__name__)

_R = TypeVar("_R", bound=Reply)
_FIRST_DELAY_S = 0.2
_LONGEST_DELAY_S = 2.0
# An agent that is restarted is back by then, also one that has many volumes to look at.
_RESTART_S = 30.0


class Asker(Protocol):
    """Who carries requests to agents; `onelun.rpc.client.Client` is the one that does it over RabbitMQ."""

    async def ask(
        self,
        node: str,
        request: Request,
        *,
        deadline: Deadline,
        id: str | None = None,  # noqa: A002 - it is what the protocol calls it
        on_progress: Callable[[str], None] | None = None,
    ) -> Reply:
        """The agent's reply; raises what the agent raised, Unreachable or NoReply. The same id never works twice."""


class Asking:
    """The requests of one action.

    Their ids derive from the action's, from what is asked of whom, and for which time. So an action that is begun again
    after the frontend went away asks the very same things, and agents answer what they have done or are doing. `attempt`
    counts how often it was begun again.
    """

    def __init__(
        self,
        asker: Asker,
        action_id: str,
        deadline: Deadline,
        *,
        accept_s: float,
        attempt: int,
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        self.deadline = deadline
        self._asker = asker
        self._namespace = uuids.UUID(action_id)
        self._accept_s = accept_s
        self._attempt = attempt
        self._on_progress = on_progress
        self._asked: Counter[bytes] = Counter()

    async def ask(
        self,
        node: str,
        request: Request,
        kind: type[_R],
        *,
        within_s: float | None = None,
        absent_s: float = 0.0,
        anew: bool = False,
    ) -> _R:
        """The reply of `node`, of that kind. `anew` asks for new work even when the action is begun again.

        An agent that restarted in the middle has undone the work and is asked anew, until the action's deadline; it may be away
        for 30 s meanwhile. A busy one is asked again for as long as it may take to accept a request, one that is not there
        for `absent_s`. Everything else is raised as it comes.
        """
        deadline = self.deadline if within_s is None else self.deadline.earlier(within_s)
        limits: dict[type[Exception], Deadline] = {
            Interrupted: deadline,
            Busy: deadline.earlier(self._accept_s),
            Unreachable: deadline.earlier(absent_s),
        }
        what = node.encode() + b" " + encode(request)
        self._asked[what] += 1
        what += b" %d %d" % (self._asked[what], self._attempt if anew else 0)
        attempt, delay = 0, _FIRST_DELAY_S
        while True:
            try:
                reply = await self._asker.ask(
                    node, request, deadline=deadline, id=self._id(what, attempt), on_progress=self._on_progress
                )
            except (Busy, Interrupted, Cancelled, Unreachable) as error:
                if isinstance(error, Interrupted):
                    # It said that it is restarted, so it will be back.
                    limits[Unreachable] = deadline.earlier(max(absent_s, _RESTART_S))
                if not self._may_repeat(error, attempt, limits, delay):
                    raise
                log.info("again node=%s action=%s attempt=%s reason=%s", node, name_of(type(request)), attempt, error)
            else:
                if not isinstance(reply, kind):
                    raise ProtocolError(f"{node} answered {name_of(type(request))} with {name_of(type(reply))}")
                return reply
            await asyncio.sleep(delay)
            attempt, delay = attempt + 1, min(2 * delay, _LONGEST_DELAY_S)

    def _may_repeat(
        self, error: Exception, attempt: int, limits: dict[type[Exception], Deadline], delay: float
    ) -> bool:
        if isinstance(error, Cancelled):
            # The frontend before this one gave the request up as it ended; nobody has given this action up.
            return self._attempt > 0 and attempt == 0
        return next(limit for kind, limit in limits.items() if isinstance(error, kind)).left_s() > delay

    def _id(self, what: bytes, attempt: int) -> str:
        return str(uuids.uuid5(self._namespace, what.decode("utf-8", "replace") + f" {attempt}"))
