"""One sandbox for all recorded actions; each begins and ends with nothing in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.recorded.cloud import LIMITS, Cloud
from tests.recorded.sandboxes import Sandboxes
from tests.support.requires import requires


@pytest.fixture(scope="session")
def sandboxes() -> Iterator[Sandboxes]:
    requires("root", "loop", "fuse", "netns", "tgtd", "rabbitmq-server", "qemu-storage-daemon", "nbdfuse", "xorriso")
    found = Sandboxes(LIMITS)
    try:
        yield found
    finally:
        found.end()


@pytest.fixture
def cloud(sandboxes: Sandboxes) -> Iterator[Cloud]:
    cloud = sandboxes.cloud()
    try:
        yield cloud
    finally:
        try:
            cloud.reset()
        except BaseException:
            # What comes after is not to fail for it.
            sandboxes.end()
            raise
