"""How a pool lies below its dataset. The last part of a dataset's name tells where its volume is in its life.

`NAME` is visible, `.new-UUID` being built, `.trash-UUID` in the trash. Three more are no volumes: `.back-UUID` is what a
revert is about to put in a volume's place, `.past-UUID.N` what it put aside and that still carries snapshots, and
`.gone-ID` what was destroyed and has clones that live on. Every step is one `zfs rename`, so that a crash leaves a volume
in one of them. A snapshot of ours is `snap:NAME`; `clone:UUID` is the moment that a clone was made of, and `gone:ID` one
that was deleted and has clones. Everything else is somebody else's.
"""

from __future__ import annotations

import re
import uuid as uuids
from typing import NamedTuple

from onelun.errors import Rejected
from onelun.naming import checked_name, checked_uuid

NEW = ".new-"
TRASH = ".trash-"
BACK = ".back-"
PAST = ".past-"
GONE = ".gone-"

SNAP = "snap:"
CLONE = "clone:"
DELETED = "gone:"

_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_HIDDEN = re.compile(rf"(\.(?:new|trash|back|gone)-)({_UUID})|(\.past-)({_UUID})\.([1-9][0-9]*)")


class Place(NamedTuple):
    """What the last part of a dataset's name says: a prefix of above and a UUID, or the name of a visible volume."""

    leaf: str
    prefix: str = ""
    uuid: str | None = None
    number: int = 0


def place_of(leaf: str) -> Place | None:
    """The place that `leaf` names; None when it cannot be one of ours."""
    match = _HIDDEN.fullmatch(leaf)
    if match is not None:
        prefix, uuid = match[1] or match[3], match[2] or match[4]
        return Place(leaf, prefix, uuid, int(match[5] or 0))
    return Place(leaf) if is_name(leaf) else None


def is_name(text: str) -> bool:
    """Whether a volume may have that name."""
    try:
        checked_name(text)
    except Rejected:
        return False
    return True


def is_uuid(text: str) -> bool:
    """Whether it is a UUID in its canonical form."""
    try:
        return checked_uuid(text) == text
    except Rejected:
        return False


def past(uuid: str, number: int) -> str:
    """The leaf of what the revert number `number` of a volume put aside."""
    return f"{PAST}{uuid}.{number}"


def gone() -> str:
    """A leaf for something destroyed, never used before."""
    return f"{GONE}{uuids.uuid4()}"


def deleted() -> str:
    """A name for a deleted snapshot, never used before."""
    return f"{DELETED}{uuids.uuid4()}"
