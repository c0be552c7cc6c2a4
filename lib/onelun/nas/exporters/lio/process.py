"""The processes that change LIO for an agent: started when needed, given one request at a time, replaced when one hangs."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from asyncio.subprocess import Process

import msgspec

import onelun
from onelun.command import Pipe, pipe
from onelun.errors import Stalled, from_wire
from onelun.nas.exporters.lio.worker import LENGTH, Answer, Request

log = logging.getLogger(__name__)

_MODULE = "onelun.nas.exporters.lio.worker"
# A process that the kernel keeps costs little, but each is a request that will hang again.
_MOST_STUCK = 8
_LAST_WORDS_S = 1.0


class Workers:
    """Up to `at_once` worker processes, which are kept for the next request.

    One that does not answer in time is killed. What the kernel holds does not die, and is left behind and counted.
    """

    def __init__(self, at_once: int) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._idle: list[_Worker] = []
        self._stuck: list[tuple[Process, Request]] = []

    async def ask(self, request: Request, timeout_s: float) -> Answer:
        """The answer to `request`, within `timeout_s` from its turn.

        A worker that died meanwhile is replaced once: all requests may be repeated. Raises Stalled when it does not
        answer, and what it answers with.
        """
        async with self._turns:
            try:
                return await self._ask(request, timeout_s)
            except _EndedError:
                log.warning("lio worker=ended request=%s action=repeated", type(request).__name__)
            try:
                return await self._ask(request, timeout_s)
            except _EndedError:
                raise Stalled("the worker process for LIO ended twice in one request; see the agent's log") from None

    @property
    def stuck(self) -> int:
        """How many processes the kernel does not let go."""
        self._stuck = [(process, request) for process, request in self._stuck if process.returncode is None]
        return len(self._stuck)

    async def close(self) -> None:
        """End the idle workers."""
        while self._idle:
            await self._idle.pop().end()

    async def _ask(self, request: Request, timeout_s: float) -> Answer:
        await self._wait_for_former(request, timeout_s)
        if self.stuck >= _MOST_STUCK:
            raise Stalled(
                f"{self.stuck} processes hang in the kernel's target service: free the devices that they wait for"
            )
        # One that died while it was idle is none.
        self._idle = [idle for idle in self._idle if idle.process.returncode is None]
        worker = self._idle.pop() if self._idle else await _Worker.start()
        try:
            async with asyncio.timeout(timeout_s):
                answer = await worker.ask(request)
        except TimeoutError:
            await self._leave(worker, request)
            raise Stalled(f"the kernel's target service did not answer within {timeout_s:g} s") from None
        except BaseException:
            await self._leave(worker, request)
            raise
        self._idle.append(worker)
        if answer.error is not None:
            raise from_wire(dict(answer.error))
        return answer

    async def _wait_for_former(self, request: Request, timeout_s: float) -> None:
        """Wait until the kernel lets go of a process that hangs in the same request: another would only hang beside it."""
        for process, former in self._stuck:
            if former == request and process.returncode is None:
                try:
                    await asyncio.wait_for(process.wait(), timeout_s)
                except TimeoutError:
                    raise Stalled(
                        f"the kernel's target service has not answered since the process {process.pid}"
                    ) from None

    async def _leave(self, worker: _Worker, request: Request) -> None:
        if not await worker.end():
            self._stuck.append((worker.process, request))
            log.error("lio worker=%s left in the kernel, stuck=%s", worker.process.pid, self.stuck)


class _EndedError(Exception):
    """The worker ended without an answer."""


class _Worker:
    """One worker process."""

    def __init__(self, started: Pipe) -> None:
        self._pipe = started
        self.process = started.process
        self._errors = asyncio.create_task(self._log())

    @classmethod
    async def start(cls) -> _Worker:
        place = os.path.dirname(os.path.dirname(os.path.abspath(onelun.__file__)))
        argv = (sys.executable, "-P", "-s", "-m", _MODULE, str(os.getpid()))
        return cls(await pipe(*argv, env={"PYTHONPATH": place}))

    async def ask(self, request: Request) -> Answer:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        body = msgspec.json.encode(request)
        try:
            self.process.stdin.write(LENGTH.pack(len(body)) + body)
            await self.process.stdin.drain()
            (length,) = LENGTH.unpack(await self.process.stdout.readexactly(LENGTH.size))
            return msgspec.json.decode(await self.process.stdout.readexactly(length), type=Answer)
        except (OSError, asyncio.IncompleteReadError):
            raise _EndedError from None

    async def end(self) -> bool:
        """Kill it; whether it is gone."""
        await self._pipe.end()
        gone = self.process.returncode is not None
        if gone:
            await asyncio.wait({self._errors}, timeout=_LAST_WORDS_S)
        return gone

    async def _log(self) -> None:
        assert self.process.stderr is not None
        while said := await self.process.stderr.read(65536):
            log.warning("lio worker=%s said=%s", self.process.pid, said.decode(errors="replace").strip())
