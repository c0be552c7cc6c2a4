"""What every request and every reply has."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

VERSION = 1
# In a field's type, what its words name: an agent that is a NAS may then write its own there alone (callers.py).
NasName = Annotated[str, msgspec.Meta(extra={"of": "nas"})]
TargetName = Annotated[str, msgspec.Meta(extra={"of": "target"})]


class Request(msgspec.Struct, kw_only=True, omit_defaults=True, tag_field="action", frozen=True):
    """What every request may carry: durations in seconds, counted by the agent from receipt."""

    v: int = VERSION
    needs: tuple[str, ...] = ()
    start_within: float | None = None
    finish_within: float | None = None


class Reply(msgspec.Struct, kw_only=True, tag_field="action", frozen=True):
    """What every successful reply carries."""

    status: Literal["success"] = "success"
