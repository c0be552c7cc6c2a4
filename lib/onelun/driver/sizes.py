"""Sizes as OpenNebula passes them: whole MB, which are MiB."""

from __future__ import annotations

import re

from onelun.errors import Rejected

MIB = 1 << 20
_LARGEST_MB = 1 << 30


def parse_size(text: str, what: str = "the size") -> int:
    """The bytes of a size in MB. Raises Rejected for what is no size between 1 MB and 1 PiB; `what` names it."""
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise Rejected(f"{what} is {text[:40]!r}, which is no number of MB")
    if not 0 < int(text) <= _LARGEST_MB:
        raise Rejected(f"{what} is {int(text)} MB: it must be between 1 MB and 1 PiB")
    return int(text) * MIB
