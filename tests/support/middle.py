"""Killing a process in the middle of an action, and proof that it was the middle.

Each role logs when it takes a piece of work and when that is done. One undisturbed run of the action shows which piece takes
longest and how long; in the next run the process is killed that far into the same piece. When its log says by then that the
piece is done, it was not the middle, and the caller tries again, earlier.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from tests.support.sandbox.place import Place

_BEGUN = re.compile(r"^(?P<at>\S+ \S+) .* (?P<work>[\w/]+) (?:state=accepted id=(?P<id>\S+)|id=(?P<call>\S+) attempt=)")
_ENDED = r" {work} (?:id={id} status=|state=(?:success|error) id={id}\b)"


@dataclass(frozen=True)
class Work:
    """The piece of work that a role's log tells of as the `number`th, and how long it took."""

    role: str
    number: int
    seconds: float


class Log:
    """What a role logs from now on."""

    def __init__(self, place: Place, role: str) -> None:
        self.role = role
        self._path = place.log(role)
        with open(self._path, "rb") as file:
            self._from = file.seek(0, 2)

    def text(self) -> str:
        with open(self._path, "rb") as file:
            file.seek(self._from)
            return file.read().decode(errors="replace")

    def begun(self) -> list[re.Match[str]]:
        """The pieces of work that were taken."""
        return [match for line in self.text().splitlines() if (match := _BEGUN.match(line))]

    def end_of(self, begun: re.Match[str]) -> str | None:
        """The line that says that a piece is done, or None."""
        done = _ENDED.format(work=re.escape(begun["work"]), id=begun["id"] or begun["call"])
        return next((line for line in self.text().splitlines() if re.search(done, line)), None)

    def longest(self) -> Work | None:
        """The piece of work that took longest; None when there was none."""
        found = []
        for number, begun in enumerate(self.begun()):
            if ended := self.end_of(begun):
                found.append(Work(self.role, number, _moment(ended) - _moment(begun["at"])))
        return max(found, key=lambda work: work.seconds, default=None)


def kill_within(log: Log, work: Work, fraction: float, kill: Callable[[], None]) -> bool:
    """Kill when that part of the work's time has gone; whether it was still under way then. At most 5 minutes."""
    end = time.monotonic() + 300
    while len(begun := log.begun()) <= work.number:
        assert time.monotonic() < end, f"{log.role} never began its piece {work.number}: {log.text()}"
        time.sleep(0.002)
    time.sleep(work.seconds * fraction)
    kill()
    # The log is written without delay, so that what is missing now was not done.
    return log.end_of(begun[work.number]) is None


def _moment(line: str) -> float:
    return datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").replace(tzinfo=UTC).timestamp()
