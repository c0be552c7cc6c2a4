"""What a trial does with the roles that an action needs: plans a fault, notes the steps they take, starts again what died."""

from __future__ import annotations

import os

from tests.support.observed import State
from tests.support.sandbox.place import NODES, Place
from tests.support.sandbox.processes import members, recorded
from tests.support.sandbox.startup import restart

from onelun.faults.plan import PASSED, Plan, arm, disarm, fired

_DATA_PATH = ("qemu-storage-da", "nbdfuse", "sleep")


class Faulted:
    """The roles of a sandbox that has a directory of faults."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._faults = place.path("faults")

    def arm(self, plan: Plan) -> None:
        """Have `plan` happen from now on."""
        arm(self._faults, plan)

    def disarm(self) -> None:
        """Have nothing happen any more."""
        disarm(self._faults)

    def fell(self) -> bool:
        """Whether what was planned has happened to a role that nobody but us starts again. Asked all the time."""
        return self.met()

    def met(self) -> bool:
        """Whether what was planned has happened."""
        return fired(self._faults)

    def revive(self, role: str) -> None:
        """Start a role again that died or hangs; returns when it answers."""
        if process := recorded(self._place, role):
            process.kill()
        restart(self._place, role)

    def note(self) -> None:
        """Have all roles note from now on which steps they take."""
        note(self._passed)

    def noted(self) -> list[str]:
        """What they noted, a line a step: the role and the point. They note no more then."""
        with open(self._passed) as file:
            lines = file.read().splitlines()
        os.unlink(self._passed)
        return lines

    def stray(self, found: State) -> str:
        """What runs that nothing needs, or does not that something does; "" when all is well."""
        running = [process.name for process in members(self._place) if process.name in _DATA_PATH]
        # Each disk has a session and a file; each host has one process that holds its namespaces.
        wanted = {"qemu-storage-da": len(found.devices), "nbdfuse": len(found.devices), "sleep": 1 + len(NODES)}
        return "".join(
            f"\nprocesses: {running.count(name)} of {name} for {number}"
            for name, number in wanted.items()
            if running.count(name) != number
        )

    def log(self, role: str) -> str:
        """What the role said."""
        with open(self._place.log(role), errors="replace") as log:
            return log.read()

    @property
    def _passed(self) -> str:
        return self._place.path("faults", PASSED)


def note(path: str) -> None:
    """Have the roles that look there note what they pass."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
    os.chmod(path, 0o666)
