"""What may differ, by type, and what a repair is."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from onelun.rpc.schema import Request


class Type(StrEnum):
    """The types of differences, in the order in which they are told and repaired: what lets go of a volume goes first."""

    NOT_ASKED = "not asked"
    MISSING_EXPORT = "missing export"
    MISSING_DEVICE = "missing device"
    MISSING_LINK = "missing link"
    WRONG_LINK = "wrong link"
    MISSING_ATTACHMENT = "missing attachment"
    DEAD_HOST = "attachment of a dead host"
    ORPHAN_ATTACHMENT = "orphan attachment"
    STALE_SESSION = "stale session"
    ORPHAN_EXPORT = "orphan export"
    ORPHAN_VOLUME = "orphan volume"
    IMAGE_UNKNOWN = "image unknown to oned"
    NO_VOLUME = "volume missing"
    ORPHAN_SNAPSHOT = "orphan snapshot"
    MISSING_SNAPSHOT = "snapshot missing"


REMOVALS = frozenset({Type.ORPHAN_VOLUME, Type.IMAGE_UNKNOWN})
"""Those whose repair takes a volume away."""


class Repair(msgspec.Struct, frozen=True):
    """What is asked of the NAS `nas`. Where oned's word is a reason for it, oned is asked about `vm` or `image` once more."""

    nas: str
    request: Request
    vm: int | None = None
    image: int | None = None


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One difference. `what` is a SOURCE, an IQN or a path; `why` and `todo` are for a person.

    Without a `repair` it is for a person alone, and `todo` says what to look at.
    """

    type: Type
    what: str
    why: str
    todo: str
    host: str = ""
    repair: Repair | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """By which it is the same one when everything is looked at again."""
        return self.type, self.what, self.host
