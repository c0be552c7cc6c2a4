"""Replies on their way to those who asked."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid

from onelun.deadline import Deadline
from onelun.errors import OnelunError, Unreachable
from onelun.rpc.channel import Outcome, Refusal, properties_of
from onelun.rpc.job import Asker
from onelun.rpc.link import Link

log = logging.getLogger(__name__)

# A caller of the bare protocol cannot ask again, so its answer waits for the broker this long.
KEEP_S = 300.0
CONFIRM_S = 30.0


def error_body(action: str | None, error: OnelunError) -> bytes:
    """An error reply. `action` is that of the successful reply, or None when the request named none that we know."""
    return json.dumps({"action": action, **error.to_wire()}).encode()


class Post:
    """Sends replies in the background, in the order in which they were given, through the default exchange."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._under_way: set[asyncio.Task[None]] = set()

    def send(self, asker: Asker, body: bytes, *, interim: bool = False) -> None:
        """Have `body` sent. An interim message is sent now or never; a final reply waits for the broker to be back."""
        if asker.reply_to is None:
            log.warning("reply state=dropped reason=no-reply_to id=%s", asker.correlation_id)
            return
        task = asyncio.create_task(self._deliver(asker.reply_to, asker, body, 0.0 if interim else KEEP_S))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def flush(self, timeout_s: float) -> None:
        """Wait until everything is sent, at most `timeout_s`; then give up the rest."""
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=timeout_s)
            for task in late:
                task.cancel()

    async def _deliver(self, queue: str, asker: Asker, body: bytes, keep_s: float) -> None:
        properties = properties_of(
            # By it a reply that nobody wants is known again when it comes back.
            message_id=str(uuid.uuid4()),
            correlation_id=asker.correlation_id,
            user_id=self._link.user,
        )
        deadline = Deadline.after(keep_s)
        # A reply whose confirm is lost is sent again: twice is better than never for a caller that cannot ask again.
        while True:
            try:
                session = await self._link.session(deadline)
                outcome = await session.publish("", queue, body, properties, Deadline.after(CONFIRM_S))
            except (Unreachable, Refusal) as error:
                log.warning("reply state=dropped id=%s reason=%s", asker.correlation_id, error)
                return
            if outcome not in (Outcome.LOST, Outcome.UNSENT) or deadline.over():
                break
        if outcome is not Outcome.ROUTED:
            log.info("reply state=%s id=%s", outcome.name.lower(), asker.correlation_id)
