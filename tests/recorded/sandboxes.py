"""A sandbox for recorded calls, with an oned and a backup datastore beside it."""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tests.recorded.backupstore import Backupstore
from tests.recorded.cloud import Cloud
from tests.support.oned import serving
from tests.support.sandbox.place import Place
from tests.support.sandbox.startup import PLAIN, Variant, up
from tests.support.sandbox.teardown import down, left_of


class Sandboxes:
    """One sandbox, until something cannot be given back in it; then another."""

    def __init__(self, limits: dict[str, float], variant: Variant = PLAIN) -> None:
        """`limits` are those of all its roles; the `variant` says what else is otherwise."""
        self._variant = replace(variant, limits=dict(limits))
        self._running = ExitStack()
        self._cloud: Cloud | None = None

    def cloud(self) -> Cloud:
        """The one that runs; a new one when there is none."""
        if self._cloud is None:
            self._cloud = self._begin()
        return self._cloud

    def _begin(self) -> Cloud:
        with ExitStack() as starting:
            # Not pytest's own directory: that is root's alone, and the frontend is another user.
            directory = Path(starting.enter_context(tempfile.TemporaryDirectory()))
            oned, auth = starting.enter_context(serving(directory))
            os.chmod(directory, 0o711)
            os.chmod(auth, 0o644)
            backups = Backupstore(directory)
            frontend: dict[str, object] = {"names": ["frontend", "vm"], "opennebula_version": "7.5"}
            frontend |= {"api": oned.url, "api_auth": auth, "remotes": str(backups.remotes)}
            place = up(None, None, os.getpid(), print, replace(self._variant, frontend=frontend))
            starting.callback(_end, place)
            cloud = Cloud(place, oned, backups)
            self._running = starting.pop_all()
        return cloud

    def end(self) -> None:
        """End the one that runs; nothing of it may be left."""
        self._cloud = None
        self._running.close()


def _end(place: Place) -> None:
    down(place)
    assert left_of(place) == []
