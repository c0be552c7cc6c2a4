"""What an agent does with each delivery: drop it, answer it, or start the job that answers it. One final reply, always."""

from __future__ import annotations

import asyncio
import logging

import msgspec

from onelun.errors import Busy, OnelunError, ProtocolError
from onelun.rpc import callers
from onelun.rpc.channel import Channel, Delivery
from onelun.rpc.delivery import asked_in, asker_of, reply_name, why_dropped
from onelun.rpc.job import Handler, Job
from onelun.rpc.jobs import Jobs, must_be_its_callers
from onelun.rpc.journal import Journal, RowState
from onelun.rpc.message import (
    BY_REQUEST,
    Cancel,
    Cancelling,
    Hello,
    HelloIs,
    Status,
    StatusIs,
    decode_request,
    name_of,
)
from onelun.rpc.post import Post, error_body
from onelun.rpc.pulse import Pulse
from onelun.rpc.schema import Request

log = logging.getLogger(__name__)

# Reads and small steps under way, which are not written down.
MOST_QUERIES = 1024
QUERY_AGAIN_S = 1.0


class Intake:
    """Takes deliveries from `exchange` for the agent that `hello` describes; answers hello, status and cancel itself."""

    def __init__(
        self,
        hello: HelloIs,
        handlers: dict[type[Request], Handler],
        *,
        exchange: str,
        jobs: Jobs,
        journal: Journal,
        post: Post,
    ) -> None:
        self._hello = hello
        self._exchange = exchange
        self._jobs = jobs
        self._journal = journal
        self._post = post
        self._under_way: set[asyncio.Task[None]] = set()
        self._handlers: dict[type[Request], Handler] = {
            Hello: self._on_hello,
            Status: self._on_status,
            Cancel: self._on_cancel,
            **handlers,
        }
        self.pulse = Pulse()

    def take(self, channel: Channel, delivery: Delivery) -> None:
        """Treat one delivery, in the background."""
        received_at = self.pulse.received_at()
        if reason := why_dropped(delivery, exchange=self._exchange, node=self._hello.node):
            channel.ack(delivery.tag)
            log.warning("request state=dropped user=%s reason=it %s", delivery.properties.user_id, reason)
            return
        task = asyncio.create_task(self._treat(channel, delivery, received_at))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def stop(self) -> None:
        """Give up what is being answered without a journal; asking again is safe."""
        for task in self._under_way:
            task.cancel()
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=2)

    async def _treat(self, channel: Channel, delivery: Delivery, received_at: float) -> None:
        try:
            body = await self._answer(delivery, received_at)
        except OnelunError as error:
            log.info("request state=refused user=%s reason=%s", delivery.properties.user_id, error)
            body = error_body(reply_name(delivery.body), error)
        except Exception:
            log.exception("request state=failed id=%s", delivery.properties.message_id)
            body = error_body(reply_name(delivery.body), OnelunError(f"{self._hello.node} failed; its log says why"))
        # Before the job that was just started says "accepted": it runs only after this task's next suspension.
        channel.ack(delivery.tag)
        if body is not None:
            self._post.send(asker_of(delivery), body)

    async def _answer(self, delivery: Delivery, received_at: float) -> bytes | None:
        """The reply, or None when what is under way will send it. Raises what the error reply says."""
        request = decode_request(delivery.body)
        verb = BY_REQUEST[type(request)]
        handler = self._handlers.get(type(request))
        if handler is None:
            raise ProtocolError(
                f"action_unsupported: {name_of(verb.request)} is no action of a {self._hello.role} agent"
            )
        callers.check(request, delivery.properties.user_id)
        asked = asked_in(delivery, request, received_at=received_at)
        if verb.journaled:
            await self._jobs.take(asked, verb, handler)
            return None
        # By hello, status and cancel callers find out what goes on: these are always answered.
        if len(self._under_way) > MOST_QUERIES and verb.role != "both":
            raise Busy(
                f"{self._hello.node} answers {MOST_QUERIES} requests at the moment: ask again in {QUERY_AGAIN_S:g} s",
                retry_after_s=QUERY_AGAIN_S,
                under_way=MOST_QUERIES,
            )
        return await self._jobs.query(asked, verb, handler)

    async def _on_hello(self, request: Hello, job: Job) -> HelloIs:
        return self._hello

    async def _on_status(self, request: Status, job: Job) -> StatusIs:
        """What became of a request; who asks for a running one hears its end too. An unknown one is withdrawn."""
        if not request.id:
            raise ProtocolError("status: the id is empty")
        if running := self._running(request.id, job):
            for asker in job.askers:
                running.add_asker(asker._replace(correlation_id=request.id))
            return StatusIs(state="running")
        row = await self._journal.withdraw(request.id)
        if row is None or row.state is RowState.WITHDRAWN:
            return StatusIs(state="unknown")
        must_be_its_callers(request.id, row.caller, job.caller)
        if row.state is RowState.DONE:
            return StatusIs(state="done", reply=msgspec.json.decode(row.reply))
        if running := self._running(request.id, job):
            for asker in job.askers:
                running.add_asker(asker._replace(correlation_id=request.id))
        return StatusIs(state="running")

    async def _on_cancel(self, request: Cancel, job: Job) -> Cancelling:
        """End a running request; one that has not come is withdrawn, so that its end cannot be overtaken by its start."""
        if running := self._running(request.id, job):
            running.cancel()
        else:
            await self._journal.withdraw(request.id)
        return Cancelling()

    def _running(self, request_id: str, asking: Job) -> Job | None:
        """The job of that id while it runs. Raises Forbidden when it is not that of who asks for it."""
        running = self._jobs.get(request_id)
        if running is not None:
            must_be_its_callers(request_id, running.caller, asking.caller)
        return running
