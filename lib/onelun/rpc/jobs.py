"""The requests that an agent works on: journaled before they start, answered once, to everybody who asked."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import sqlite3
import time
from collections.abc import Awaitable
from typing import Any

import msgspec

from onelun.config import Limits
from onelun.errors import Busy, Cancelled, Forbidden, OnelunError, ProtocolError, Stalled
from onelun.rpc.delivery import Asked
from onelun.rpc.job import Asker, Handler, Job
from onelun.rpc.journal import Journal, Row, RowState
from onelun.rpc.message import BY_NAME, Verb, name_of
from onelun.rpc.post import Post, error_body
from onelun.rpc.room import Room, host_of
from onelun.rpc.schema import Reply

log = logging.getLogger(__name__)


def must_be_its_callers(request_id: str, caller: str | None, asking: str | None) -> None:
    """Raise Forbidden unless `asking` is who asked the request: its result and its end are nobody else's."""
    if asking != caller:
        raise Forbidden(f"the request {request_id} is another caller's")


class Jobs:
    """All jobs of one agent. `node` is its name, for sentences."""

    def __init__(self, node: str, journal: Journal, post: Post, limits: Limits) -> None:
        self._node = node
        self._journal = journal
        self._post = post
        self._limits = limits
        self._room = Room(node, limits.at_once)
        self._jobs: dict[str, Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._questions: set[tuple[str, Asker, bytes]] = set()

    def get(self, job_id: str) -> Job | None:
        """The job `job_id`, while it runs."""
        return self._jobs.get(job_id)

    async def take(self, asked: Asked, verb: Verb, handler: Handler) -> bool:
        """Write the request down and start it; return whether it was accepted, so that the delivery can be acknowledged.

        A repeat is answered with what the first one brings or brought; it never starts work. Raises Busy when it may not
        start: its time to start is over, or there is no room (the fact `retry_after_s` says when to come again; nothing is
        kept of it then); ProtocolError when its id means another request.
        """
        if running := self._jobs.get(asked.id):
            _must_be_same(asked, running.digest, running.caller)
            running.add_asker(asked.asker)
            self._tell_accepted(running, asked)
            return True
        if (known := await self._known_without_room(asked, verb)) is not None:
            self._repeat(asked, self._job(asked, verb), known)
            return False
        self._must_not_be_late(asked)
        job = self._jobs[asked.id] = self._job(asked, verb)
        try:
            row = await self._journal.accept(
                asked.id, action=job.action, caller=asked.caller, digest=asked.digest, request=asked.body
            )
        except BaseException:
            del self._jobs[asked.id]
            raise
        if row is not None:
            del self._jobs[asked.id]
            self._repeat(asked, job, row)
            return False
        task = asyncio.create_task(self._work(job, asked, verb, handler), name=f"{job.action} {job.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _known_without_room(self, asked: Asked, verb: Verb) -> Row | None:
        """None when there is room. Without, a known request's row, as its repeat needs none; Busy for another one."""
        try:
            self._room.check(asked.request, verb, self._jobs.values())
        except Busy:
            if (row := await self._journal.find(asked.id)) is None:
                raise
            return row
        return None

    async def query(self, asked: Asked, verb: Verb, handler: Handler) -> bytes | None:
        """The answer to a request that is not written down; None for a repeat, whose asker the first will answer."""
        self._must_not_be_late(asked)
        question = (asked.id, asked.asker, asked.digest)
        if question in self._questions:
            return None
        self._questions.add(question)
        try:
            return await self._result(self._job(asked, verb), asked, verb, handler)
        finally:
            self._questions.discard(question)

    async def stop(self) -> None:
        """Interrupt what runs and wait until it has ended and answered, as long as a cancelled job may take."""
        for job in self._jobs.values():
            job.interrupt()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._limits.preempt_s + 2)

    def _job(self, asked: Asked, verb: Verb) -> Job:
        limit_s = self._limits.copy_s if verb.copies else self._limits.finish_s
        if asked.request.finish_within is not None:
            limit_s = max(0.0, min(limit_s, asked.request.finish_within))
        job = Job(
            asked.id,
            action=name_of(verb.request),
            caller=asked.caller,
            limit_s=limit_s,
            progress_s=self._limits.progress_s,
            tell=self._tell,
            digest=asked.digest,
            host=host_of(asked.request),
        )
        job.add_asker(asked.asker)
        return job

    def _must_not_be_late(self, asked: Asked) -> None:
        within = asked.request.start_within
        if within is not None and time.monotonic() - asked.received_at > within:
            raise Busy(f"{self._node} could not start this within {within:g} s: nothing was done, ask again")

    def _repeat(self, asked: Asked, job: Job, row: Row) -> None:
        """Answer those who asked for an id that is known."""
        if row.state is RowState.DONE:
            _must_be_same(asked, row.digest, row.caller)
            body = row.reply
        elif row.state is RowState.WITHDRAWN:
            sentence = f"{job.action} was withdrawn before it came to {self._node}: nothing was done"
            body = error_body(_reply_name(job.action), Cancelled(sentence))
        else:
            body = error_body(_reply_name(job.action), Busy(f"{self._node} is still starting: ask again"))
        for asker in job.askers:
            self._post.send(asker, body)

    async def _work(self, job: Job, asked: Asked, verb: Verb, handler: Handler) -> None:
        self._tell_accepted(job, asked)
        started = time.monotonic()
        log.info("%s state=accepted id=%s caller=%s", job.action, job.id, job.caller)
        try:
            self._must_not_be_late(asked)
            body = await self._result(job, asked, verb, handler)
        except Busy as error:
            body = error_body(name_of(verb.reply), error)
        try:
            await self._journal.finish(job.id, body)
        except OnelunError as error:
            log.error("%s state=unwritten id=%s reason=%s", job.action, job.id, error)
        del self._jobs[job.id]
        self._room.ended(len(self._jobs))
        for asker in job.askers:
            self._post.send(asker, body)
        status = json.loads(body)
        log.info(
            "%s state=%s id=%s seconds=%.3f%s",
            job.action,
            status["status"],
            job.id,
            time.monotonic() - started,
            f" code={status['code']} error={status['error']}" if "code" in status else "",
        )

    async def _result(self, job: Job, asked: Asked, verb: Verb, handler: Handler) -> bytes:
        """Run the handler within its limits; its reply or its error as a body."""
        try:
            if job.ending.done():
                raise job.ending.result()
            reply = await self._outcome(job, handler(asked.request, job))
            return msgspec.json.encode(reply)
        except OnelunError as error:
            return error_body(name_of(verb.reply), error)
        except Exception as error:
            log.exception("%s state=failed id=%s", job.action, job.id)
            reason = reason_of(error) or "for a reason that its log explains"
            return error_body(name_of(verb.reply), OnelunError(f"{job.action} failed inside {self._node} {reason}"))

    async def _outcome(self, job: Job, work: Awaitable[Reply]) -> Reply:
        task = asyncio.ensure_future(work)
        waiting: set[asyncio.Future[Any]] = {task, job.ending}
        await asyncio.wait(waiting, timeout=job.deadline.left_s(), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            job.expire()
            task.cancel()
            await asyncio.wait({task}, timeout=self._limits.preempt_s)
        if not task.done():
            task.add_done_callback(lambda _: log.warning("%s state=ended-late id=%s", job.action, job.id))
            raise Stalled(
                f"{job.action} could not be stopped: its outcome is unknown until {self._node} gets free of it"
            )
        if task.cancelled():
            raise job.ending.result() if job.ending.done() else OnelunError(f"{job.action} cancelled itself")
        return task.result()

    def _tell_accepted(self, job: Job, asked: Asked) -> None:
        if asked.asker.interim:
            self._post.send(asked.asker, _interim(job, {"status": "accepted"}), interim=True)

    def _tell(self, job: Job, message: dict[str, object]) -> None:
        for asker in job.askers:
            if asker.interim:
                self._post.send(asker, _interim(job, message), interim=True)


def _interim(job: Job, message: dict[str, object]) -> bytes:
    return json.dumps({"action": _reply_name(job.action), **message}).encode()


def _reply_name(action: str) -> str:
    return name_of(BY_NAME[action].reply)


def _must_be_same(asked: Asked, digest: bytes, caller: str | None) -> None:
    must_be_its_callers(asked.id, caller, asked.caller)
    if asked.digest != digest:
        raise ProtocolError(f"the message_id {asked.id} was used for another request before")


def reason_of(error: Exception) -> str:
    """Why work failed, where an operator can mend it: a disk that is full or broken under what the agent keeps; else ""."""
    match error:
        case sqlite3.OperationalError():
            return f"because its state directory cannot be written ({error}): see to that disk"
        case OSError(errno=errno.ENOSPC | errno.EDQUOT | errno.EROFS | errno.EIO, filename=path, strerror=text):
            return f"because {path or 'a file of its own'} cannot be written ({text}): see to that disk"
    return ""
