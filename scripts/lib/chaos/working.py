"""A process with a sandbox of its own, which takes trials off a queue."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import Queue
from typing import Any, Protocol

from scripts.lib.chaos.crowd import CROWD, crowd
from scripts.lib.chaos.scenarios import BY_KIND, live_through
from scripts.lib.chaos.trial import LIMITS, Result, UnpreparedError, Verdict, attempt, given_back
from tests.recorded.cloud import Cloud
from tests.recorded.passing import Pass, passed
from tests.recorded.row import Action
from tests.recorded.sandboxes import Sandboxes
from tests.recorded.table import ACTIONS
from tests.support.observed import Unreadable
from tests.support.sandbox.startup import Variant

from onelun.faults.plan import Plan

# What the NAS agent's catalogue and journal have; one scenario fills it.
STATE_MB = 16
BY_ID = {action.id: action for action in ACTIONS}


@dataclass(frozen=True)
class Trace:
    """See which steps a row takes."""

    action: str


@dataclass(frozen=True)
class Traced:
    """The steps that a row took; `trouble` is why that could not be seen."""

    action: str
    passes: tuple[Pass, ...] = ()
    trouble: str = ""


@dataclass(frozen=True)
class Try:
    """Do a row with that fault."""

    action: str
    plan: Plan


@dataclass(frozen=True)
class Live:
    """Live through a scenario with a row, or with fifty actions."""

    action: str
    kind: str


Job = Trace | Try | Live
Answer = Traced | Result


class Standing(Protocol):
    """Where trials are done, as Sandboxes is."""

    def cloud(self) -> Cloud:
        """The one that stands."""

    def end(self) -> None:
        """Give it up."""


class Worker:
    """Does jobs in one sandbox after the other, as long as each can be given back."""

    def __init__(
        self, sandboxes: Standing, passed: Callable[[Any, Action], Iterable[Pass]] = passed, *, strict: bool = False
    ) -> None:
        """`passed` tells which steps there are; a `strict` one counts what cannot be given back as leaked."""
        self.sandboxes = sandboxes
        self._steps = passed
        self._strict = strict

    def do(self, job: Job) -> Answer:
        """What a job showed."""
        try:
            answer = self._done(job)
        except BaseException:
            self._reset()
            raise
        if (trouble := self._reset()) and self._strict and isinstance(answer, Result) and not answer.bad:
            return replace(answer, verdict=Verdict.LEAKED, why=f"all could not be given back: {trouble}")
        return answer

    def _done(self, job: Job) -> Answer:
        match job:
            case Trace(action):
                return Traced(action, self._passed(action))
            case Try(action, plan):
                return self._judged(action, plan, partial(attempt, action=BY_ID[action], plan=plan))
            case Live(_, kind) if kind == CROWD:
                return self._judged(job.action, Plan("", "die"), crowd, kind)
            case Live(action, kind):
                trial = partial(live_through, action=BY_ID[action], scenario=BY_KIND[kind])
                return self._judged(action, Plan("", "delay"), trial, kind)

    def _passed(self, action: str) -> tuple[Pass, ...]:
        """The steps of a row; on a slow machine it may take a second try."""
        try:
            return tuple(self._steps(self.sandboxes.cloud(), BY_ID[action]))
        except (AssertionError, Unreadable):
            self._reset()
            return tuple(self._steps(self.sandboxes.cloud(), BY_ID[action]))

    def _judged(self, action: str, plan: Plan, trial: Callable[[Cloud], Result], kind: str = "") -> Result:
        try:
            try:
                result = trial(self.sandboxes.cloud())
            except UnpreparedError:
                self.sandboxes.end()
                result = trial(self.sandboxes.cloud())
        except Exception as error:  # noqa: BLE001 - one trial is not to end the others
            result = Result(action, plan, Verdict.LOST, 0.0, kind, why=f"the trial broke off: {error!r}")
        if result.bad:
            keep_logs(self.sandboxes.cloud(), result)
        return result

    def _reset(self) -> str:
        """Give all back; why that fails."""
        try:
            given_back(self.sandboxes.cloud())
        except Exception as error:  # noqa: BLE001 - what comes after is not to fail for it
            self.sandboxes.end()
            return str(error) or repr(error)
        return ""


def keep_logs(cloud: Cloud, result: Result) -> None:
    """Copy the ends of the roles' logs beside the result, where CHAOS_LOGS names a directory."""
    if directory := os.environ.get("CHAOS_LOGS"):
        os.makedirs(directory, exist_ok=True)
        name = f"{result.action}-{result.what}-{result.plan.side}-{result.plan.point}".replace("/", ":")
        with open(f"{directory}/{name}", "w") as kept:
            kept.write(f"{result}\n")
            for role in ("frontend", "nas1", "node1", "node2"):
                kept.write("\n".join([f"\n== {role}", *cloud.faulted.log(role).splitlines()[-80:]]))


def work(jobs: Queue[Job | None], answers: Queue[Answer | None]) -> None:
    """Do jobs until there are no more. An interrupt ends the sandbox before the process."""
    begin_work()
    worker = Worker(Sandboxes(LIMITS, Variant(faults=True, warm=True, state_mb=STATE_MB)))
    try:
        while (job := jobs.get()) is not None:
            answers.put(served(worker, job))
    except KeyboardInterrupt:
        pass
    finally:
        end_work(worker.sandboxes.end, answers)


def served(worker: Worker, job: Job) -> Answer:
    """What a job showed, or why it could not be done."""
    try:
        return worker.do(job)
    except Exception:  # noqa: BLE001 - as above
        worker.sandboxes.end()
        return Traced(job.action, trouble=traceback.format_exc(limit=-3))


def begin_work() -> None:
    """Have what would end this process interrupt it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


def end_work(end: Callable[[], None], answers: Queue[Answer | None]) -> None:
    """End what the work was done in, whatever comes meanwhile, and say so."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    end()
    answers.put(None)
