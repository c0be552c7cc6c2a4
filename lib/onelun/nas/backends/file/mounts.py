"""Whether the filesystem that a directory should be on is mounted."""

from __future__ import annotations

import os
import re


def unmounted(path: str, *, fstab: str = "/etc/fstab", mounts: str = "/proc/self/mountinfo") -> str | None:
    """The place, at or above `path`, that fstab(5) gives a filesystem and where none is mounted; None when there is none."""
    path = os.path.realpath(path)
    wanted = {os.path.normpath(place) for place in _column(fstab, 1) if place.startswith("/")}
    lacking = wanted - set(_column(mounts, 4))
    return next((place for place in sorted(lacking) if path == place or path.startswith(place + "/")), None)


def _column(file: str, number: int) -> list[str]:
    """One column of a file of mounts. Both kinds write blanks as octal numbers (getmntent(3))."""
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as lines:
            rows = [line.split() for line in lines if not line.startswith("#")]
    except OSError:
        return []
    return [
        re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), row[number]) for row in rows if len(row) > number
    ]
