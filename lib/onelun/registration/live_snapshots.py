"""LIVE_DISK_SNAPSHOTS in vmm_execrc: the pairs of hypervisor and driver whose disks may be snapshotted while a VM runs.

The file is one of assignments that a shell reads.
"""

from __future__ import annotations

import re

from onelun.errors import Rejected
from onelun.registration.wanted import LIVE_SNAPSHOTS

NAME = "LIVE_DISK_SNAPSHOTS"
_ASSIGNMENT = re.compile(rf"^[ \t]*(?:export[ \t]+)?{NAME}=(.*)$", re.MULTILINE)
_QUOTED = re.compile(r"""(["'])([^"'`$]*)\1[ \t]*(?:#.*)?$""", re.MULTILINE)


def registered(text: str, path: str = "vmm_execrc") -> str:
    """The text with onelun's pairs; the same text when it has them.

    Raises Rejected for an assignment that is not one quoted list: it is left for a person.
    """
    start, end = _span(text, path)
    have = text[start:end].split()
    new = [pair for pair in LIVE_SNAPSHOTS if pair not in have]
    if not new:
        return text
    return text[:end] + (" " if end > start else "") + " ".join(new) + text[end:]


def unregistered(text: str, path: str = "vmm_execrc") -> str:
    """The text without them; the same text when it has none. A file without the list has none. Raises Rejected as above."""
    if not _ASSIGNMENT.search(text):
        return text
    start, end = _span(text, path)
    rest = text[start:end]
    for pair in LIVE_SNAPSHOTS:
        rest = re.sub(rf"^{pair}(?:\s|$)|\s{pair}(?=\s|$)", "", rest)
    return text[:start] + rest + text[end:]


def findings(text: str, path: str = "vmm_execrc") -> list[str]:
    """One sentence when running VMs could not be snapshotted. Raises Rejected as above."""
    start, end = _span(text, path)
    if LIVE_SNAPSHOTS[0] in text[start:end].split():
        return []
    without = f"{NAME} in {path} does not list {LIVE_SNAPSHOTS[0]}"
    return [f"{without}, so that no running VM's disk can be snapshotted: `onelun register --apply`"]


def _span(text: str, path: str) -> tuple[int, int]:
    """Where the list stands, within its quotes; of several assignments the last counts."""
    found = list(_ASSIGNMENT.finditer(text))
    if not found:
        raise Rejected(f"{path} has no {NAME}=: is it OpenNebula's vmm_execrc?")
    quoted = _QUOTED.match(text, found[-1].start(1))
    if quoted is None:
        line = text.count("\n", 0, found[-1].start(1)) + 1
        raise Rejected(
            f"{path}: {NAME} in line {line} is not one list in quotes: add {' '.join(LIVE_SNAPSHOTS)} by hand"
        )
    return quoted.span(2)
