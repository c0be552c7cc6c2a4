"""Which session's disk was verified, noted for the next agent: what has no note was left half-made by a killed one."""

from __future__ import annotations

import contextlib
import os

import msgspec


class Note(msgspec.Struct, frozen=True):
    """The disk `lun` of the session of that number is what `iqn` should be.

    Without `lun` we have done with the session, and it stays for somebody who uses another LUN of it.
    """

    iqn: str
    session: int
    lun: int | None


class Notes:
    """One file a target below `directory`, which goes with a reboot as the sessions do."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def get(self, iqn: str) -> Note | None:
        """The target's note."""
        try:
            with open(self._path(iqn), "rb") as file:
                return msgspec.json.decode(file.read(), type=Note)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return None

    def put(self, note: Note) -> None:
        """Note it, in place of an earlier one."""
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        aside = f"{self._directory}/.{note.session}"
        with open(aside, "wb") as file:
            file.write(msgspec.json.encode(note))
        os.replace(aside, self._path(note.iqn))

    def remove(self, iqn: str) -> None:
        """Forget the target. Absent: nothing."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(iqn))

    def targets(self) -> list[str]:
        """The targets that have a note."""
        try:
            return [name for name in sorted(os.listdir(self._directory)) if not name.startswith(".")]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def trouble(self) -> str | None:
        """Why nothing can be noted; None when it can."""
        if os.path.lexists(self._directory) and not os.path.isdir(self._directory):
            return f"{self._directory} is no directory: remove it, or configure another one"
        return None

    def _path(self, iqn: str) -> str:
        return f"{self._directory}/{iqn}"
