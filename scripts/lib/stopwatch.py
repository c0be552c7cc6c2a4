"""Times of whole processes: one after the other, and many at once."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# These fill caches.
WARM_UPS = 3


@dataclass(frozen=True)
class Program:
    """What is run: argv, its environment, and the file on its stdin."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    stdin: str = os.devnull


@dataclass(frozen=True)
class Burst:
    """Many at once: how long each took, how long all, and how many failed."""

    each_s: list[float]
    total_s: float
    failed: int

    @property
    def per_second(self) -> float:
        """How many ended in a second."""
        return len(self.each_s) / self.total_s

    @property
    def p99_s(self) -> float:
        """What all but one in a hundred stayed below."""
        return statistics.quantiles(self.each_s, n=100)[98]


def start(program: Program) -> int:
    """Start it and return its pid; its output goes nowhere."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, program.stdin, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
    ]
    return os.posix_spawn(program.argv[0], list(program.argv), dict(program.environment), file_actions=actions)


def once(program: Program) -> float:
    """The seconds from start to end. Raises RuntimeError when it fails."""
    started = time.perf_counter()
    pid = start(program)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    took = time.perf_counter() - started
    if status:
        raise RuntimeError(f"{program.argv[0]} failed with status {status}")
    return took


def pairs(one: Program, other: Program, rounds: int) -> tuple[list[float], list[float]]:
    """The seconds of both, measured in turn, each the first as often: what disturbs one disturbs both."""
    ours: list[float] = []
    beside: list[float] = []
    for number in range(rounds + WARM_UPS):
        both = [(one, ours), (other, beside)]
        for program, times in both if number % 2 else reversed(both):
            times.append(once(program))
    return ours[WARM_UPS:], beside[WARM_UPS:]


def burst(programs: Sequence[Program]) -> Burst:
    """Start all, then wait for all."""
    started: dict[int, float] = {}
    each, failed = [], 0
    begin = time.perf_counter()
    for program in programs:
        moment = time.perf_counter()
        started[start(program)] = moment
    while len(each) < len(programs):
        pid, status = os.waitpid(-1, 0)
        if pid not in started:
            # Left by a burst that was cut off.
            continue
        each.append(time.perf_counter() - started[pid])
        failed += status != 0
    return Burst(each, time.perf_counter() - begin, failed)
