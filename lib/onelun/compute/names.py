"""The lasting names of devices: links such as /dev/onelun/nas1/tank/one-7, the same text on every host.

A name goes before its device goes, so that it can never show another volume.
"""

from __future__ import annotations

import contextlib
import os

from onelun.errors import Conflict


class Names:
    """The names below `root`, which nobody else writes to."""

    def __init__(self, root: str) -> None:
        self._root = root.rstrip("/")

    def path(self, name: str) -> str:
        """The lasting name in full: the text of a `disk.N`."""
        return f"{self._root}/{name}"

    def holds(self, path: str) -> bool:
        """Whether `path` would be one of these names."""
        return path.startswith(f"{self._root}/")

    def device(self, name: str) -> str | None:
        """The device of that name now."""
        try:
            return os.readlink(self.path(name))
        except OSError:
            return None

    def put(self, name: str, device: str) -> None:
        """Give `device` the name; a device that had it loses it at once. Raises Conflict when a directory is there."""
        path = self.path(name)
        if self.device(name) == device:
            return
        folder, last = os.path.split(path)
        os.makedirs(folder, exist_ok=True)
        aside = f"{folder}/.new-{last}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)
        os.symlink(device, aside)
        try:
            os.replace(aside, path)
        except OSError as error:
            os.unlink(aside)
            raise Conflict(f"cannot name a device {path}: {error.strerror}") from error

    def remove(self, name: str, device: str | None = None) -> None:
        """Take the name away, when `device` is given only from that one, with directories that become empty."""
        there = self.device(name)
        if there is None or device not in (None, there):
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(name))
        folder = os.path.dirname(self.path(name))
        with contextlib.suppress(OSError):
            while folder != self._root:
                os.rmdir(folder)
                folder = os.path.dirname(folder)

    def all(self) -> dict[str, str]:
        """Every name and its device."""
        found = {}
        for folder, directories, files in os.walk(self._root):
            for entry in (*directories, *files):
                path = f"{folder}/{entry}"
                if os.path.islink(path):
                    found[path.removeprefix(f"{self._root}/")] = os.readlink(path)
        return found
