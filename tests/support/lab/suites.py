"""`scripts/lab test`: the contract suites in guests and the bats files, one summary, and nothing left behind."""

from __future__ import annotations

import contextlib
import glob
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

from tests.support.lab import record
from tests.support.lab.machine import Say
from tests.support.lab.place import CHECKOUT, LabError
from tests.support.lab.teardown import down

_LAB = (sys.executable, "-m", "tests.support.lab")
# The aim is half an hour on two cores and an empty cache; a busy machine gets more before all is ended.
LIMIT_S = 3600
_SUITE_S = 2400
# A guest starts processes slowly, and an emulated one does everything slowly.
_TEST_S = 900
# So much of what a failed part printed is printed again at the end, for who sees only the end of a log.
_LAST_LINES = 60


@dataclass(frozen=True)
class Ended:
    """How a part ended, and its last lines."""

    name: str
    status: int
    took_s: float
    lines: Sequence[str]


@dataclass(frozen=True)
class Part:
    """One thing to run: its name, and its command in the checkout."""

    name: str
    argv: tuple[str, ...]


def contract(name: str, kind: str, chosen: str, marked: str) -> Part:
    """The contract suites' tests that need a guest's kernel, `chosen` and `marked`, in a throw-away guest with two disks."""
    guest = ("run", "--disk", "4G", "--disk", "4G", "--memory", "1024", "--limit", str(_SUITE_S), kind, "--")
    pytest = ("pytest", "-v", "--durations", "10", "--timeout", str(_TEST_S))
    return Part(name, (*_LAB, *guest, *pytest, "-m", marked, "-k", chosen, "tests/contract"))


# From the longest on, as they are on two slow cores; the others are shorter. What ends alone leaves a core idle.
_LONGEST = (
    *("contract zfs", "contract lvm", "contract lio, iscsi", "11-install.bats", "04-node-reboot.bats", "01-life.bats"),
    *("10-backups.bats", "03-nas-reboot.bats", "07-many.bats", "09-snapshots.bats", "05-cables.bats"),
)

# What both kinds of guests can do is tried on the quicker one.
SUITES = {
    "contract zfs": ("qemu", "zfs"),
    "contract lvm": ("uml", "lvm"),
    "contract lio, iscsi": ("uml", "not lvm and not zfs"),
}


def suites(*, whole: bool) -> list[Part]:
    """The contract suites, each in a guest of its own; without the longest tests unless `whole`.

    Those are crashes between any two steps, and dozens of volumes at once, minutes each in a guest; names and sizes that
    are refused; and further cases of changes, adopting and attributes, of which the others try the main ones.
    """
    marked = "guest" if whole else "guest and not long"
    return [contract(name, kind, chosen, marked) for name, (kind, chosen) in SUITES.items()]


def parts(wanted: Sequence[str]) -> list[Part]:
    """What is run, the longest first. `wanted` are bats files and the word `contract`."""
    files = [name for name in wanted if name != "contract"]
    if missing := [name for name in files if not os.path.exists(name)]:
        raise LabError(f"there is no {missing[0]}: name files such as tests/lab/00-engines.bats, or `contract`")
    chosen = suites(whole=bool(wanted)) if not wanted or "contract" in wanted else []
    if not wanted:
        files = sorted(glob.glob(f"{CHECKOUT}/tests/lab/*.bats"))
    bats = [Part(os.path.basename(name), ("bats", "--timing", name)) for name in files]
    place = {name: number for number, name in enumerate(_LONGEST)}
    return sorted([*chosen, *bats], key=lambda part: place.get(part.name, len(place)))


def run_all(wanted: Sequence[str], say: Say) -> bool:
    """Run them and say how each ended; whether all passed."""
    chosen = parts(wanted)
    end = time.monotonic() + LIMIT_S
    summary: list[Ended] = []
    running: set[subprocess.Popen[str]] = set()
    cores: SimpleQueue[int] = SimpleQueue()
    for core in (available := sorted(os.sched_getaffinity(0))):
        cores.put(core)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        with ThreadPoolExecutor(len(available)) as pool, _ended_early(running):
            summary += pool.map(lambda part: _run(part, end, say, running, cores), chosen)
    finally:
        for lab in record.abandoned():
            down(lab)
    for part in summary:
        if part.status:
            print(f"\n== the end of {part.name}", *part.lines, sep="\n")
    print()
    for part in summary:
        print(f"{part.name:24} {'passed' if part.status == 0 else f'FAILED ({part.status})'} in {part.took_s:.0f} s")
    failed = [part.name for part in summary if part.status]
    print(
        f"scripts/lab test: FAILED: {', '.join(failed)}" if failed else "scripts/lab test: everything passed",
        flush=True,
    )
    return not failed


@contextlib.contextmanager
def _ended_early(running: set[subprocess.Popen[str]]) -> Iterator[None]:
    """End what runs when somebody ends us, instead of waiting for it."""
    try:
        yield
    except BaseException:
        for child in list(running):
            child.terminate()
        raise


def _run(part: Part, end: float, say: Say, running: set[subprocess.Popen[str]], cores: SimpleQueue[int]) -> Ended:
    """Run one part on a core of its own, its output line by line with its name before it; killed when the time is over."""
    core = cores.get()
    started = time.monotonic()
    say(f"== {part.name}")
    env = {**os.environ, "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT}/lib"}
    limit = ("timeout", "-k", "10", str(max(1, int(end - started))))
    # Also when we are killed outright, the part ends; `scripts/lab down` then finds the labs it had.
    child = subprocess.Popen(
        ("setpriv", "--pdeathsig", "TERM", "taskset", "--cpu-list", str(core), *limit, *part.argv),
        cwd=CHECKOUT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert child.stdout is not None
    running.add(child)
    lines: deque[str] = deque(maxlen=_LAST_LINES)
    for line in child.stdout:
        print(f"{part.name}: {line}", end="", flush=True)
        lines.append(line.rstrip("\n"))
    status = child.wait()
    running.discard(child)
    cores.put(core)
    say(f"== {part.name} {'passed' if status == 0 else 'FAILED'}")
    return Ended(part.name, status, time.monotonic() - started, lines)
