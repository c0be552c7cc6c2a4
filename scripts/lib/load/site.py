"""A sandbox under load: oned's calls, the memory of its roles, and whether all is as before."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from scripts.lib.load.report import Report
from scripts.lib.oned import Oned
from tests.recorded.acting import difference
from tests.support.observed import State, observe
from tests.support.sandbox.__main__ import environment
from tests.support.sandbox.place import HOSTS, Place
from tests.support.sandbox.processes import members, recorded
from tests.support.sandbox.startup import Variant, up
from tests.support.sandbox.teardown import down, left_of

ROLES = (*HOSTS, "frontend")
HOSTS_OF_ONED = ("host01", "host02")
# How long the agents may take to tidy up by themselves.
SETTLE_S = 60.0


@dataclass(frozen=True)
class Held:
    """What the resident processes hold: bytes of memory and open files by role, and the other processes by name."""

    memory: dict[str, int]
    files: dict[str, int]
    processes: Counter[str]


@dataclass(frozen=True)
class Site:
    """One sandbox and its oned."""

    place: Place
    oned: Oned

    def at(self, host: str, vm: int, disk: int | None = None) -> str:
        """A VM's directory on a host, or a disk in it, as oned writes it."""
        return f"{host}:{self.oned.directory(vm)}" + ("" if disk is None else f"/disk.{disk}")

    def held(self) -> Held:
        """What is held now."""
        pids = {role: self._pid(role) for role in ROLES}
        names = Counter(process.name for process in members(self.place))
        memory = {role: _memory(pid) for role, pid in pids.items()}
        return Held(memory, {role: len(os.listdir(f"/proc/{pid}/fd")) for role, pid in pids.items()}, names)

    def worked_s(self, role: str) -> float:
        """How long the role has had a processor. What it does on its own rounds is in it."""
        total = 0
        pid = self._pid(role)
        for task in os.listdir(f"/proc/{pid}/task"):
            # A thread may end meanwhile.
            with suppress(OSError), open(f"/proc/{pid}/task/{task}/schedstat") as file:
                total += int(file.read().split()[0])
        return total / 1e9

    def left(self) -> str:
        """What is left though all was given back, after a while for the agents to tidy up; "" when nothing is."""
        end = time.monotonic() + SETTLE_S
        while (found := observe(self.place)) != State() and time.monotonic() < end:
            time.sleep(0.5)
        return difference(found, State()).strip()

    def log(self, role: str) -> str:
        """The role's log."""
        with open(self.place.log(role), errors="replace") as file:
            return file.read()

    def _pid(self, role: str) -> int:
        process = recorded(self.place, role)
        if process is None:
            raise RuntimeError(f"{role} is gone; its log ends with: {self.log(role)[-500:]}")
        return process.pid


def _memory(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        found = re.search(r"^VmRSS:\s+(\d+) kB$", file.read(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


@contextmanager
def site(report: Report, limits: dict[str, object] | None = None) -> Iterator[Site]:
    """A sandbox for the body; whatever of it is left afterwards is an error. `limits` are other than usual."""
    place = up(None, None, os.getpid(), lambda _: None, Variant(limits=limits or {}))
    report.say(f"sandbox {place.number} is up")
    try:
        yield Site(place, Oned("7.5", place.datastores, environment(place), safe_dirs=place.dir))
    finally:
        down(place)
    if left := left_of(place):
        report.row("left of the sandbox", "; ".join(left), "nothing", met=False)
