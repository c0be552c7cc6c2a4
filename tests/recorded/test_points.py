"""The points of `onelun fault list` are those that the recorded actions pass, but for what is known to need something else."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

import pytest
from tests.recorded.cloud import LIMITS
from tests.recorded.passing import passed
from tests.recorded.sandboxes import Sandboxes
from tests.recorded.table import ACTIONS
from tests.recorded.unpassed import UNPASSED
from tests.support.requires import requires
from tests.support.sandbox.startup import Variant

from onelun.faults.points import points

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def passes() -> Iterator[set[str]]:
    """The points that all actions pass, undisturbed."""
    requires("root", "loop", "fuse", "netns", "tgtd", "rabbitmq-server", "qemu-storage-daemon", "nbdfuse", "xorriso")
    sandboxes = Sandboxes(LIMITS, Variant(faults=True))
    found: set[str] = set()
    try:
        # Some steps are taken only when agents meet in a certain moment: what no action has come to is tried once more.
        for _ in range(2):
            for action in ACTIONS:
                found |= {point for _, point in passed(sandboxes.cloud(), action)}
                sandboxes.cloud().reset()
            if not unpassed(found):
                break
        yield found
    finally:
        sandboxes.end()


def unpassed(passes: set[str]) -> list[str]:
    """The points of the list that none of `passes` is and for which no reason is known."""
    known = [pattern for patterns in UNPASSED.values() for pattern in patterns]
    names = {point.name for point in points()} - passes
    return sorted(name for name in names if not any(fnmatchcase(name, pattern) for pattern in known))


def test_every_step_that_is_taken_is_on_the_list(passes: set[str]) -> None:
    assert passes - {point.name for point in points()} == set()


def test_every_point_of_the_list_is_passed_or_it_is_known_why_not(passes: set[str]) -> None:
    assert unpassed(passes) == []


def test_what_is_known_not_to_be_passed_is_on_the_list(passes: set[str]) -> None:
    names = {point.name for point in points()}

    known = [pattern for patterns in UNPASSED.values() for pattern in patterns]

    assert [pattern for pattern in known if not any(fnmatchcase(name, pattern) for name in names)] == []
