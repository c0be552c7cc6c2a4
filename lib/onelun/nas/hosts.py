"""The compute nodes as a NAS sees them: who they are, and asking them without letting a hung one starve the others."""

from __future__ import annotations

import asyncio
import contextlib
import uuid as uuids
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Protocol, TypeVar

from onelun.config import Limits
from onelun.deadline import Deadline
from onelun.errors import NoReply, ProtocolError, Unreachable
from onelun.naming import checked_initiator, checked_name
from onelun.nas.locks import Locks
from onelun.rpc.message import Hello, HelloIs, Reply, Request

# What a NAS keeps of its own budget when it waits for a host, to undo and answer in time.
_SPARE_S = 5.0

_R = TypeVar("_R", bound=Reply)


class Asker(Protocol):
    """Sends a request to a node and returns its reply; rpc.client.Client is one."""

    async def ask(self, node: str, request: Request, *, deadline: Deadline, id: str | None = None) -> Reply:  # noqa: A002
        """Return the reply, or raise the error that came."""


class Hosts:
    """The compute nodes."""

    def __init__(self, asker: Asker, limits: Limits) -> None:
        self._asker = asker
        self._limits = limits
        self._slots: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(limits.per_host))
        self._known: dict[str, HelloIs] = {}
        self._turns = Locks()

    async def ask(self, host: str, request: Request, reply: type[_R], *, deadline: Deadline, of: str, step: str) -> _R:
        """The host's reply to `request`, whose id derives from the job `of` and its `step`: a repeat is answered, not redone.

        At most `per_host` requests are under way to one host. Raises what the host replied, Unreachable, NoReply.
        """
        left_s = deadline.left_s()
        budget = deadline.earlier(max(left_s / 2, left_s - _SPARE_S))
        try:
            async with asyncio.timeout(budget.left_s()):
                await self._slots[host].acquire()
        except TimeoutError:
            raise NoReply(f"{host} is still busy with earlier requests") from None
        try:
            request_id = str(uuids.uuid5(uuids.NAMESPACE_OID, f"{of} {step} {host}"))
            answer = await self._asker.ask(host, request, deadline=budget, id=request_id)
        finally:
            self._slots[host].release()
        if not isinstance(answer, reply):
            raise ProtocolError(f"{host} answered {type(request).__name__} with {type(answer).__name__}")
        return answer

    async def hello(self, host: str, *, deadline: Deadline) -> HelloIs:
        """Ask who the host is, now. Raises Unreachable when nobody serves it."""
        checked_name(host, "name of a host")
        budget = deadline.earlier(self._limits.accept_s)
        said = await self._asker.ask(host, Hello(), deadline=budget)
        if not isinstance(said, HelloIs) or said.role != "compute" or said.initiator is None:
            raise ProtocolError(f"{host} is no compute node")
        self._known[host] = said
        return said

    async def initiator(self, host: str, *, deadline: Deadline) -> str:
        """The host's iSCSI name. It is asked each time: an agent that has gone or changed its name must not get a target.

        Raises Unreachable also when the host is silent: nothing has been done for it yet.
        """
        try:
            said = await self.hello(host, deadline=deadline)
        except NoReply as error:
            raise Unreachable(f"{host} does not answer: nothing was done ({error.sentence})", host=host) from error
        return checked_initiator(said.initiator or "")

    def instance(self, host: str) -> str | None:
        """The agent's instance that last said hello."""
        return self._known[host].instance if host in self._known else None

    @contextlib.asynccontextmanager
    async def turn(self, host: str, *, alone: bool = False) -> AsyncIterator[None]:
        """Keep changes of one attachment (shared) and a sync of all of them (`alone`) of a host apart."""
        async with self._turns.hold(*((host,) if alone else ()), shared=() if alone else (host,)):
            yield
