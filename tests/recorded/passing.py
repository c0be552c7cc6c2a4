"""Which points of `onelun fault list` an action passes."""

from __future__ import annotations

import time

from tests.recorded.acting import call_of, prepared
from tests.recorded.cloud import Cloud
from tests.recorded.row import Action

# A role, and the name of a point.
Pass = tuple[str, str]


def passed(cloud: Cloud, action: Action) -> list[Pass]:
    """The role and point of each step of the action, each once, in their order."""
    return list(dict.fromkeys(taken(cloud, action)))


def taken(cloud: Cloud, action: Action) -> list[Pass]:
    """The same, as often as the step is taken."""
    prepared(cloud, action)
    cloud.faulted.note()
    cloud.run(call_of(cloud, action))
    # What is done after the answer belongs to it too.
    time.sleep(0.3)
    lines = cloud.faulted.noted()
    return [(role, point) for role, _, point in (line.partition(" ") for line in lines)]
