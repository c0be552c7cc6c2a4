"""An agent's end of the wire: its queue shows that it is there, and every request gets exactly one final reply."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping
from typing import Any

from onelun import __version__
from onelun.config import Limits
from onelun.deadline import Deadline
from onelun.errors import Conflict, Interrupted, OnelunError, Rejected, Unreachable
from onelun.rpc.channel import Channel, Lost, Refusal
from onelun.rpc.intake import Intake
from onelun.rpc.job import Handler
from onelun.rpc.jobs import Jobs
from onelun.rpc.journal import Journal
from onelun.rpc.link import Link
from onelun.rpc.message import BY_NAME, HelloIs, name_of
from onelun.rpc.post import Post, error_body
from onelun.rpc.session import Session

log = logging.getLogger(__name__)

PURGE_S = 600.0


class Server:
    """Serves `handlers` under the name `node`. Hello, status and cancel it answers itself.

    `role` is nas or compute; `initiator` a compute node's iSCSI name. A handler returns the reply or raises an error of
    errors.py; it is cancelled when its caller says so, when its time is over, and when the agent is stopped, and then has
    `limits.preempt_s` to undo what it did.
    """

    def __init__(
        self,
        link: Link,
        node: str,
        journal: Journal,
        handlers: Mapping[type[Any], Handler],
        *,
        role: str,
        limits: Limits,
        initiator: str | None = None,
    ) -> None:
        self._link = link
        self._node = node
        self._journal = journal
        self._limits = limits
        self._post = Post(link)
        self._jobs = Jobs(node, journal, self._post, limits)
        hello = HelloIs(node=node, role=role, instance=str(uuid.uuid4()), version=__version__, initiator=initiator)
        self._intake = Intake(
            hello, dict(handlers), exchange=link.exchange, jobs=self._jobs, journal=journal, post=self._post
        )
        self.serving = asyncio.Event()

    async def serve(self) -> None:
        """Serve until cancelled; then interrupt what runs, answer it, and leave.

        What an earlier life of the agent left open in the journal becomes final at once (interrupted), so the agent
        must have put its own house in order before; `Journal.open_rows` tells what that was.

        Raises Conflict when another agent has the name, and Rejected when the broker is not set up for us, or so loosely
        that we could read what is meant for others.
        """
        await self._close_open_rows()
        chores = [asyncio.create_task(self._intake.pulse.beat()), asyncio.create_task(self._purge())]
        try:
            while True:
                await self._serve_on(await self._session())
        finally:
            for chore in chores:
                chore.cancel()
            await self._leave()

    async def _serve_on(self, session: Session) -> None:
        try:
            channel = await self._enter(session)
        except Lost:
            return
        except Refusal as refusal:
            raise self._explained(refusal) from refusal
        self.serving.set()
        log.info("serve node=%s exchange=%s", self._node, self._link.exchange)
        try:
            ends: set[asyncio.Future[Any]] = {session.lost, channel.ended}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.serving.clear()
            # The queue goes with its consumer: who asks from now on hears at once that we are not there.
            await channel.close()

    async def _session(self) -> Session:
        while True:
            try:
                return await self._link.session(Deadline.after(60))
            except Unreachable:
                # The link says in the log what is wrong, and goes on trying.
                await asyncio.sleep(1)

    async def _enter(self, session: Session) -> Channel:
        """Take our name, see that the broker keeps others' requests from us, and listen."""
        channel = await self._own_queue(session)
        await channel.check_exchange(self._link.exchange)
        await self._must_be_fenced_in(session)
        await channel.bind(self._node, self._link.exchange, self._node)
        await channel.consume(self._node, lambda delivery: self._intake.take(channel, delivery), no_ack=False)
        return channel

    async def _own_queue(self, session: Session) -> Channel:
        """A channel with our queue. A half-open connection of our own may hold the name for three heartbeats."""
        deadline = Deadline.after(3 * self._link.heartbeat_s)
        while True:
            channel = await session.channel()
            try:
                await channel.declare_exclusive(self._node)
            except Refusal as refusal:
                if refusal.code != 405:
                    raise
                if deadline.over():
                    raise Conflict(
                        f"an agent called {self._node} is connected to the broker already: stop it, or rename this one"
                    ) from refusal
                log.warning("serve node=%s state=waiting reason=another connection has the name", self._node)
                await asyncio.sleep(min(2.0, self._link.heartbeat_s / 2))
            else:
                return channel

    async def _must_be_fenced_in(self, session: Session) -> None:
        """Refuse to serve when the broker lets us bind everybody's keys, as it does for a user without topic permissions."""
        probe = await session.channel()
        try:
            await probe.bind(self._node, self._link.exchange, "#")
        except Refusal as refusal:
            if refusal.code != 403:
                raise
            return
        await probe.unbind(self._node, self._link.exchange, "#")
        await probe.close()
        raise Rejected(
            f"the broker would let {self._link.user} read the requests to everybody: run `onelun broker setup`"
        )

    def _explained(self, refusal: Refusal) -> OnelunError:
        if refusal.code == 404:
            return Rejected(f"the broker has no exchange {self._link.exchange}: run `onelun broker setup`")
        if refusal.code == 403:
            return Rejected(
                f"the broker does not let {self._link.user} serve as {self._node}: name it to `onelun broker setup`"
            )
        return Rejected(f"the broker does not let us serve as {self._node}: {refusal.text}")

    async def _close_open_rows(self) -> None:
        for row in await self._journal.open_rows():
            verb = BY_NAME.get(row.action)
            error = Interrupted(f"{row.action} was interrupted, because {self._node} was restarted: ask again")
            await self._journal.finish(row.id, error_body(name_of(verb.reply) if verb else None, error))
            log.warning("%s state=interrupted id=%s", row.action, row.id)

    async def _purge(self) -> None:
        while True:
            try:
                await self._journal.purge(self._limits.results_s)
            except OnelunError as error:
                log.error("purge state=failed reason=%s", error)
            await asyncio.sleep(min(PURGE_S, self._limits.results_s))

    async def _leave(self) -> None:
        await self._intake.stop()
        await self._jobs.stop()
        await self._post.flush(2)
