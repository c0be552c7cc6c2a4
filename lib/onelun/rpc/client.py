"""A caller's end of the wire: ask a node, and know what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable
from typing import Any

from onelun.config import Limits
from onelun.deadline import Deadline
from onelun.errors import OnelunError, Rejected, Unreachable, from_wire
from onelun.naming import checked_name
from onelun.rpc.call import Call
from onelun.rpc.channel import Outcome, Refusal, properties_of
from onelun.rpc.link import Link
from onelun.rpc.mailbox import Mailbox
from onelun.rpc.message import BY_REQUEST, Cancel, Verb, decode_reply, encode, name_of
from onelun.rpc.patience import Patience
from onelun.rpc.query import Query
from onelun.rpc.schema import Reply, Request
from onelun.rpc.session import Session

log = logging.getLogger(__name__)

# AMQP 0-9-1 has properties as short strings.
_LONGEST_ID = 255


class Client:
    """Asks agents over `link`; any number of requests at once."""

    def __init__(self, link: Link, limits: Limits) -> None:
        self._link = link
        self._mailbox = Mailbox(link)
        self._under_way: set[asyncio.Task[None]] = set()
        self.limits = limits

    async def ask(
        self,
        node: str,
        request: Request,
        *,
        deadline: Deadline,
        id: str | None = None,  # noqa: A002 - the protocol's word
        on_progress: Callable[[str], None] | None = None,
    ) -> Reply:
        """Have `node` do what `request` says, by `deadline`, and return its reply.

        `id` becomes the message_id: asking again with the same one never does the work twice, but brings what the first
        brought. A cancelled call withdraws the request, and waits up to 5 s for its end. An agent that has no room is asked
        again when it says so, until the deadline.

        Raises Unreachable when nobody took the request, so that nothing happened; NoReply when its outcome is unknown; or
        the error that the agent replied. Rejected for a `node` or an `id` that cannot be.
        """
        verb = BY_REQUEST[type(request)]
        checked_name(node, "name of an agent")
        if id is not None and not 0 < len(id.encode()) <= _LONGEST_ID:
            raise Rejected(f"an id has 1 to {_LONGEST_ID} bytes, not {len(id.encode())}")
        request_id = id or str(uuid.uuid4())
        patience = Patience(node, _name(request), deadline)
        twice = False  # two copies of it may have got into the node's queue
        while True:
            with self._mailbox.inbox(request_id, node) as inbox:
                if verb.journaled:
                    call = Call(self, inbox, request, deadline, on_progress)
                    letter = await call.outcome()
                    twice = twice or call.copies > 1
                else:
                    letter = await Query(self, inbox, request, deadline).answer()
                if letter.get("status") == "success":
                    return decode_reply(letter, verb.reply)
                error = from_wire(letter)
                try:
                    pause_s = patience.pause_s(error)
                except OnelunError:
                    # One copy was refused; the other may have been taken, or be taken yet.
                    if not twice or (settled := await call.settled()) is None:
                        raise
                    return _reply(settled, verb)
            if on_progress is not None:
                on_progress(error.sentence)
            log.info("wait node=%s action=%s seconds=%.1f reason=%s", node, _name(request), pause_s, error)
            try:
                await asyncio.sleep(pause_s)
            except asyncio.CancelledError:
                if twice:
                    self.withdraw(node, request_id)
                raise

    async def query(self, node: str, request: Request, deadline: Deadline) -> dict[str, Any]:
        """The reply to a request that may be sent again and again, as a document. Raises as `ask` does."""
        with self._mailbox.inbox(str(uuid.uuid4()), node) as inbox:
            return await Query(self, inbox, request, deadline).answer()

    async def close(self) -> None:
        """Have what was withdrawn sent, for a moment at most. The link stays open."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=1)

    def withdraw(self, node: str, request_id: str) -> None:
        """Tell `node` to end the work of a request, or not to start it, without waiting for what that brings."""

        async def send() -> None:
            with contextlib.suppress(OnelunError):
                cancel = Cancel(id=request_id)
                await self.send(node, cancel, str(uuid.uuid4()), Deadline.after(self.limits.accept_s))

        task = asyncio.create_task(send())
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def send(self, node: str, request: Request, request_id: str, deadline: Deadline) -> bool:
        """Publish a request; True when it is in the node's queue, False when nobody knows.

        Raises Unreachable when it is certainly not.
        """
        # What waits in the queue longer than this, because its agent hangs, goes away by itself.
        expiration_ms = int(1000 * (request.start_within or self.limits.accept_s)) + 1
        while True:
            session, queue = await self._mailbox.queue(deadline)
            await self._flowing(session, deadline)
            properties = properties_of(
                message_id=request_id,
                reply_to=queue,
                user_id=self._link.user,
                headers={"interim": True},
                expiration=str(expiration_ms),
            )
            try:
                outcome = await session.publish(self._link.exchange, node, encode(request), properties, deadline)
            except Refusal as refusal:
                raise Unreachable(self._explained(node, refusal)) from refusal
            if outcome is Outcome.UNROUTABLE:
                raise Unreachable(f"no agent called {node} is connected to the broker", node=node)
            if outcome is Outcome.NACKED:
                raise Unreachable(f"the broker could not take {_name(request)} for {node}")
            if outcome is not Outcome.UNSENT:
                return outcome is Outcome.ROUTED
            if deadline.over():
                raise Unreachable(f"the broker at {self._link.address} took no message in time")

    async def _flowing(self, session: Session, deadline: Deadline) -> None:
        """Wait until the broker takes messages; one that it takes late would be started late."""
        while session.blocked is not None and session.is_open:
            if deadline.over():
                raise Unreachable(f"the broker at {self._link.address} takes no messages ({session.blocked})")
            await asyncio.sleep(min(0.1, deadline.left_s()))

    def _explained(self, node: str, refusal: Refusal) -> str:
        if refusal.code == 404:
            return f"the broker has no exchange {self._link.exchange}: run `onelun broker setup`"
        if refusal.code == 403:
            return f"the broker does not let {self._link.user} ask {node}: name both to `onelun broker setup`"
        return f"the broker refuses what {self._link.user} sends to {node}: {refusal.text}"


def _reply(letter: dict[str, Any], verb: Verb) -> Reply:
    if letter.get("status") == "success":
        return decode_reply(letter, verb.reply)
    raise from_wire(letter)


def _name(request: Request) -> str:
    return name_of(type(request))
