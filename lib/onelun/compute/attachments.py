"""What this host has attached, in one small file a target: it says which names and links belong to a device.

The files live beside the devices in the run directory, and go with them when the machine restarts.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec


class Attached(msgspec.Struct, frozen=True):
    """One target of the NAS `nas`. `name` is the device's lasting name, relative; `links` are paths of `disk.N`."""

    iqn: str
    nas: str
    name: str
    device: str
    uuid: str | None = None
    readonly: bool = False
    links: tuple[str, ...] = ()


class Attachments:
    """The files in `directory`. Saving replaces a file at once; removing an absent one succeeds."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def all(self) -> list[Attached]:
        """All of them, by IQN."""
        found = [self._read(path) for path in Path(self._directory).glob("*.json")]
        return sorted((attached for attached in found if attached), key=lambda attached: attached.iqn)

    def get(self, iqn: str) -> Attached | None:
        """The one of that IQN."""
        return self._read(Path(self._path(iqn)))

    def save(self, attached: Attached) -> None:
        """Write it down."""
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        path = self._path(attached.iqn)
        Path(f"{path}.new").write_bytes(msgspec.json.encode(attached))
        os.replace(f"{path}.new", path)

    def remove(self, iqn: str) -> None:
        """Forget it."""
        Path(self._path(iqn)).unlink(missing_ok=True)

    def _path(self, iqn: str) -> str:
        return f"{self._directory}/{hashlib.sha256(iqn.encode()).hexdigest()[:16]}.json"

    def _read(self, path: Path) -> Attached | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=Attached)
        except (FileNotFoundError, ValueError):
            # Bytes that are no UTF-8 are a ValueError, too, and no DecodeError.
            return None
