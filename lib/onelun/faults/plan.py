"""What is to go wrong next: one plan at a time, in a directory that the test and all agents share.

`plan.json` is armed by the test; whoever comes to its point renames it to `fired.json`, so that it happens once, whatever is
started again afterwards. While there is a file `passed`, each agent adds the points that it passes to it; while there is a
file `clock`, its wall clock is ahead by so many seconds.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Container
from typing import Literal, get_args

import msgspec

Action = Literal["die", "hang", "fail", "delay", "drop", "twice", "late"]
Side = Literal["before", "after"]
ACTIONS: tuple[Action, ...] = get_args(Action)
PLAN, FIRED, PASSED, CLOCK = "plan.json", "fired.json", "passed", "clock"
# Kept from before the doors are changed: what a plan needs of the system is no step.
_stat, _rename, _open, _write, _close = os.stat, os.rename, os.open, os.write, os.close


class Plan(msgspec.Struct, frozen=True):
    """`action` at the `nth` pass of `point` in the process of `role`; `seconds` is how long delays, lateness and hangs take."""

    point: str
    action: Action
    side: Side = "before"
    role: str = ""
    nth: int = 1
    seconds: float = 3600.0


class Plans:
    """The plans in `directory`, for the process of `role`. Used from any thread."""

    def __init__(self, directory: str, role: str) -> None:
        self._directory = directory
        self._role = role
        self._lock = threading.Lock()
        self._seen: tuple[int, int] | None = None
        self._plan: Plan | None = None
        self._left = 0

    def due(self, point: str, side: Side, only: Container[Action] = ACTIONS) -> Plan | None:
        """The plan, when it is for now and its action one of `only`; it is used up then."""
        with self._lock:
            if side == "before":
                self._note(point)
            plan = self._read()
            if (
                plan is None
                or (plan.point, plan.side) != (point, side)
                or plan.role not in ("", self._role)
                or plan.action not in only
            ):
                return None
            self._left -= 1
            if self._left > 0:
                return None
            try:
                _rename(f"{self._directory}/{PLAN}", f"{self._directory}/{FIRED}")
            except FileNotFoundError:
                return None
            self._seen = self._plan = None
            return plan

    def ahead_s(self) -> float:
        """By how many seconds the wall clock is ahead."""
        try:
            with open(f"{self._directory}/{CLOCK}") as file:
                return float(file.read())
        except FileNotFoundError:
            return 0.0

    def _read(self) -> Plan | None:
        try:
            found = _stat(f"{self._directory}/{PLAN}")
        except FileNotFoundError:
            self._seen = self._plan = None
            return None
        if self._seen != (found.st_ino, found.st_mtime_ns):
            with open(f"{self._directory}/{PLAN}", "rb") as file:
                self._plan = msgspec.json.decode(file.read(), type=Plan)
            self._seen, self._left = (found.st_ino, found.st_mtime_ns), self._plan.nth
        return self._plan

    def _note(self, point: str) -> None:
        try:
            file = _open(f"{self._directory}/{PASSED}", os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            _write(file, f"{self._role} {point}\n".encode())
        finally:
            _close(file)


def arm(directory: str, plan: Plan) -> None:
    """Have `plan` happen from now on, in place of what was planned."""
    disarm(directory)
    with open(f"{directory}/{PLAN}.new", "wb") as file:
        file.write(msgspec.json.encode(plan))
    os.chmod(f"{directory}/{PLAN}.new", 0o644)
    os.rename(f"{directory}/{PLAN}.new", f"{directory}/{PLAN}")


def disarm(directory: str) -> None:
    """Have nothing happen any more. Repeating it changes nothing."""
    for name in (PLAN, FIRED):
        if os.path.exists(f"{directory}/{name}"):
            os.unlink(f"{directory}/{name}")


def set_clock(directory: str, ahead_s: float) -> None:
    """Have the wall clock of all roles jump, so that it is ahead by `ahead_s`; 0 has it right again. Monotonic ones go on."""
    with open(f"{directory}/{CLOCK}.new", "w") as file:
        file.write(str(ahead_s))
    os.chmod(f"{directory}/{CLOCK}.new", 0o644)
    os.rename(f"{directory}/{CLOCK}.new", f"{directory}/{CLOCK}")


def fired(directory: str) -> bool:
    """Whether what was planned has begun to happen."""
    return os.path.exists(f"{directory}/{FIRED}")
