"""`scripts/chaos`: every operation, with a fault at every step it takes, then the same again, then a look at everything."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click
from rich.console import Console
from scripts.lib.chaos.crowd import CROWD, FIFTY
from scripts.lib.chaos.labs import ROWS, build_lab, down_abandoned, engine, work_in_labs
from scripts.lib.chaos.scenarios import MIDDLES, SCENARIOS
from scripts.lib.chaos.steps import is_named, script_of, spread, trials
from scripts.lib.chaos.table import Tally
from scripts.lib.chaos.trial import Result
from scripts.lib.chaos.working import BY_ID, Job, Live, Trace, Traced, Try, work
from tests.recorded.passing import Pass

from onelun.faults.points import points

KINDS = ("die", "fail", "hang", "drop", "twice", "late", "scenarios")
# A trial waits most of its time until a death is noticed.
_AT_ONCE = min(8, 4 * len(os.sched_getaffinity(0)))
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """SIGTERM, SIGHUP or Ctrl-C."""


class Crew:
    """The processes that do the trials; `answers` come in any order."""

    def __init__(self, number: int, work: Callable[..., None]) -> None:
        context = multiprocessing.get_context("spawn")
        self._jobs: Any = context.Queue()
        self._answers: Any = context.Queue()
        self._crew = [context.Process(target=work, args=(self._jobs, self._answers)) for _ in range(number)]
        for process in self._crew:
            process.start()

    def answers(self, jobs: Sequence[Job], until: float) -> Any:
        """Each job's answer; none is begun after `until` on the monotonic clock."""
        waiting, under_way = list(reversed(jobs)), 0
        while waiting or under_way:
            while waiting and under_way < len(self._crew) and time.monotonic() < until:
                self._jobs.put(waiting.pop())
                under_way += 1
            if not under_way:
                return
            answer = self._answers.get()
            if answer is None:
                raise RuntimeError("a process that does trials ended")
            under_way -= 1
            yield answer

    def end(self) -> None:
        """End the processes and their sandboxes, whatever they do."""
        for sign in _SIGNALS:
            signal.signal(sign, signal.SIG_IGN)
        for _ in self._crew:
            self._jobs.put(None)
        for process in self._crew:
            process.join(0.5)
            if process.is_alive():
                process.terminate()
        # What they still say would keep them.
        end = time.monotonic() + 60
        while any(process.is_alive() for process in self._crew) and time.monotonic() < end:
            try:
                self._answers.get(timeout=0.2)
            except queue.Empty:
                continue


@click.command()
@click.option("--only", multiple=True, type=click.Choice(KINDS), help="What to try; all of it unless told.")
@click.option("--script", "scripts", multiple=True, help="A script such as tm.clone; all unless told.")
@click.option("--point", "named", multiple=True, help="Only points, or scenarios, with this in their name.")
@click.option(
    "--spread", "most", type=click.IntRange(1), help="Each point in so many scripts at most; in all that take it."
)
@click.option("--minutes", default=24 * 60.0, help="Begin no trial after that; points that were in none come first.")
@click.option("--trials", "number", type=click.IntRange(1), help="So many, evenly out of all.")
@click.option("--sandboxes", type=click.IntRange(1, 8), help="How many at once; 4 a processor unless told, or 1 lab.")
@click.option("--lab", is_flag=True, help="On LVM-thin, LIO and open-iscsi, in guests; steps of these come first.")
def chaos(
    only: tuple[Any, ...],
    scripts: tuple[str, ...],
    named: tuple[str, ...],
    most: int | None,
    number: int | None,
    minutes: float,
    sandboxes: int | None,
    *,
    lab: bool,
) -> None:
    """Try what is lost and what is leaked when things break; exits with 1 when anything is."""
    if lab and "scenarios" in only:
        raise click.UsageError("scenarios are for sandboxes")
    rows = [row for row in (ROWS if lab else BY_ID) if not scripts or script_of(row) in scripts]
    if unknown := set(scripts) - {script_of(row) for row in rows}:
        raise click.UsageError(f"no such script: {', '.join(sorted(unknown))}")
    tally, began = Tally(Console(soft_wrap=True, highlight=False, markup=False, width=150)), time.monotonic()
    for sign in _SIGNALS:
        signal.signal(sign, _interrupt)
    if lab:
        build_lab(tally.say)
    crew = Crew(sandboxes or (1 if lab else _AT_ONCE), work_in_labs if lab else work)
    try:
        kinds = only or (KINDS[:-1] if lab else KINDS)
        wanted = Wanted(rows, kinds, named, most or len(BY_ID), number)
        _run(crew, tally, wanted, began + 60 * minutes)
    except Interrupted:
        tally.trouble("interrupted; the sandboxes are gone")
    finally:
        crew.end()
        if lab:
            down_abandoned()
    tally.show()
    sys.exit(1 if tally.bad or tally.troubles else 0)


@dataclass(frozen=True)
class Wanted:
    """What a run is asked for: see the command's options."""

    rows: list[str]
    faults: tuple[Any, ...]
    named: tuple[str, ...]
    most: int
    number: int | None

    def scenarios(self) -> list[Job]:
        """Those among the faults."""
        if "scenarios" not in self.faults:
            return []
        rows = [row for row in MIDDLES if row in self.rows]
        jobs: list[Job] = [
            Live(row, scenario.kind) for scenario in SCENARIOS for row in rows if is_named(scenario.kind, self.named)
        ]
        return jobs + ([Live(FIFTY, CROWD)] if len(self.rows) == len(BY_ID) and is_named(CROWD, self.named) else [])

    def chosen(self, jobs: list[Job]) -> list[Job]:
        """As many of them as are wanted."""
        number = min(self.number or len(jobs), len(jobs))
        return [jobs[place * len(jobs) // number] for place in range(number)]


def _run(crew: Crew, tally: Tally, wanted: Wanted, until: float) -> None:
    # On sandboxes none is a step of these engines.
    trials = sorted(_trials(crew, tally, wanted, until), key=lambda job: not engine(job.plan.point))
    jobs = wanted.chosen([*trials, *wanted.scenarios()])
    if not jobs:
        tally.trouble("there is nothing to try: no step of these scripts, or scenario, has such a name")
    tally.begin(len(jobs))
    for answer in crew.answers(jobs, until):
        match answer:
            case Result():
                tally.add(answer)
            case Traced(action, _, trouble):
                tally.trouble(f"{action}: {trouble}")


def _trials(crew: Crew, tally: Tally, wanted: Wanted, until: float) -> list[Try]:
    """Do each row undisturbed, and see what there is to be tried in it."""
    steps = [fault for fault in wanted.faults if fault != "scenarios"]
    passes: dict[str, tuple[Pass, ...]] = {}
    for answer in crew.answers([Trace(row) for row in wanted.rows] if steps else [], until):
        passes[answer.action] = answer.passes
        if answer.trouble:
            tally.trouble(f"{answer.action} could not be done undisturbed: {answer.trouble}")
    found = {name for of_row in passes.values() for _, name in of_row}
    for name in sorted(found - {listed.name for listed in points()}):
        tally.trouble(f"`onelun fault list` lacks {name}")
    found_trials = trials({row: passes[row] for row in wanted.rows if row in passes}, steps, wanted.named)
    return [Try(row, plan) for row, _, plan in spread(found_trials, wanted.most)]


def _interrupt(*_: object) -> None:
    for sign in _SIGNALS:
        signal.signal(sign, signal.SIG_IGN)
    raise Interrupted


if __name__ == "__main__":
    chaos()
