"""Which points of `onelun fault list` an action passes."""

from __future__ import annotations

import os
import time

from tests.recorded.acting import call_of, prepared
from tests.recorded.cloud import Cloud
from tests.recorded.row import Action

from onelun.faults.plan import PASSED

# A role, and the name of a point.
Pass = tuple[str, str]


def passed(cloud: Cloud, action: Action) -> list[Pass]:
    """The role and point of each step of the action, each once, in their order."""
    prepared(cloud, action)
    path = cloud.place.path("faults", PASSED)
    note(path)
    cloud.run(call_of(cloud, action))
    # What is done after the answer belongs to it too.
    time.sleep(0.3)
    with open(path) as file:
        lines = dict.fromkeys(file.read().splitlines())
    os.unlink(path)
    return [(role, point) for role, _, point in (line.partition(" ") for line in lines)]


def note(path: str) -> None:
    """Have all roles note there what they pass."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
    os.chmod(path, 0o666)
