"""A caller's queue for replies, and who among the callers each reply is for."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from onelun.deadline import Deadline
from onelun.errors import ProtocolError, Unreachable
from onelun.rpc.channel import Channel, Delivery, Lost, Refusal
from onelun.rpc.link import Link
from onelun.rpc.session import Session

log = logging.getLogger(__name__)

# A message to a caller, or the news that the queue, and with it every answer on its way, is lost.
Letter = dict[str, Any] | None


class Inbox:
    """The letters for one request to one node, in order."""

    def __init__(self, request_id: str, node: str) -> None:
        self.request_id = request_id
        self.node = node
        self._letters: asyncio.Queue[Letter] = asyncio.Queue()

    def put(self, letter: Letter) -> None:
        """Add a letter; None says that the queue was lost."""
        self._letters.put_nowait(letter)

    async def get(self, timeout_s: float) -> Letter:
        """The next letter. Raises TimeoutError after `timeout_s` without one."""
        if not self._letters.empty():
            return self._letters.get_nowait()
        async with asyncio.timeout(timeout_s):
            return await self._letters.get()


class Mailbox:
    """One exclusive queue with a random name for as long as a connection lasts, then another."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._inboxes: dict[str, set[Inbox]] = {}
        self._making = asyncio.Lock()
        self._session: Session | None = None
        self._channel: Channel | None = None
        self._queue = ""

    @contextmanager
    def inbox(self, request_id: str, node: str) -> Iterator[Inbox]:
        """An inbox for the replies that refer to `request_id` and come from `node`."""
        inbox = Inbox(request_id, node)
        self._inboxes.setdefault(request_id, set()).add(inbox)
        try:
            yield inbox
        finally:
            self._inboxes[request_id].discard(inbox)
            if not self._inboxes[request_id]:
                del self._inboxes[request_id]

    async def queue(self, deadline: Deadline) -> tuple[Session, str]:
        """The open connection and the name of our queue on it. Raises Unreachable when there is none by `deadline`."""
        while True:
            session = await self._link.session(deadline)
            async with self._making:
                if session is self._session and self._channel is not None and self._channel.is_open:
                    return session, self._queue
                if session.is_open:
                    try:
                        await self._make(session)
                    except Lost:
                        continue
                    except Refusal as refusal:
                        raise Unreachable(
                            f"the broker gives {self._link.user} no queue for replies: {refusal.text}"
                        ) from refusal
                    return session, self._queue

    async def _make(self, session: Session) -> None:
        channel = await session.channel()
        # Permissions know our queues by the prefix; nobody can guess the rest.
        queue = f"rpc-{secrets.token_hex(12)}"
        await channel.declare_exclusive(queue)
        await channel.consume(queue, self._on_delivery, no_ack=True)
        self._session, self._channel, self._queue = session, channel, queue
        channel.ended.add_done_callback(lambda _: self._on_lost())

    def _on_lost(self) -> None:
        for inbox in [inbox for inboxes in self._inboxes.values() for inbox in inboxes]:
            inbox.put(None)

    def _on_delivery(self, delivery: Delivery) -> None:
        inboxes = self._inboxes.get(delivery.properties.correlation_id or "", ())
        sender = delivery.properties.user_id
        # Every node may write into our queue: only the broker's word for the sender tells whose reply it is.
        meant = [inbox for inbox in inboxes if sender in (f"nas.{inbox.node}", f"compute.{inbox.node}")]
        if not meant:
            log.debug("reply state=unwanted user=%s id=%s", sender, delivery.properties.correlation_id)
            if inboxes:
                log.warning("reply state=dropped reason=it comes from user %s", sender)
            return
        letter = _letter(delivery.body)
        for inbox in meant:
            inbox.put(letter)


def _letter(body: bytes) -> dict[str, Any]:
    """The reply as a document; one that cannot be read becomes the error that says so."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict):
        return document
    return {"action": None, **ProtocolError("the reply is no JSON object").to_wire()}
