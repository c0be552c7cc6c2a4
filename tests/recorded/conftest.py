"""One sandbox for all recorded actions; each begins and ends with nothing in it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.recorded.cloud import Cloud
from tests.support.oned import serving
from tests.support.requires import requires
from tests.support.sandbox.startup import Variant, up
from tests.support.sandbox.teardown import down, left_of


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Cloud]:
    requires("root", "loop", "fuse", "netns", "tgtd", "rabbitmq-server", "qemu-storage-daemon", "nbdfuse", "xorriso")
    # Not pytest's own directory: that is root's alone, and the frontend is another user.
    with tempfile.TemporaryDirectory() as directory, serving(Path(directory)) as (oned, auth):
        os.chmod(directory, 0o711)
        os.chmod(auth, 0o644)
        frontend = {"names": ["frontend", "vm"], "opennebula_version": "7.5", "api": oned.url, "api_auth": auth}
        place = up(None, None, os.getpid(), print, Variant(frontend=frontend))
        try:
            yield Cloud(place, oned)
        finally:
            down(place)
        assert left_of(place) == []


@pytest.fixture
def cloud(sandbox: Cloud) -> Iterator[Cloud]:
    try:
        yield sandbox
    finally:
        sandbox.reset()
