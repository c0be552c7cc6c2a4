"""What every request and every reply has, and what is said of how one is treated."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

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


def name_of(message: type[Request] | type[Reply]) -> str:
    """The `action` of a message type."""
    return str(message.__struct_config__.tag)


Kind = Literal["frontend", "nas", "compute", "unnamed"]
# Only frontends may publish under the name of a NAS, so there one without user_id is a frontend too.
TO_NAS: tuple[Kind, ...] = ("frontend", "unnamed")
BY_FRONTEND: tuple[Kind, ...] = ("frontend",)
BY_NAS: tuple[Kind, ...] = ("nas",)
BY_ANYBODY: tuple[Kind, ...] = ("frontend", "nas", "unnamed")


class Verb(NamedTuple):
    """How one request is treated. `journaled`: accepted durably, before work. `copies`: may last as long as a copy.

    `frees`: it ends something, and so has room in an agent that takes nothing else any more.
    `callers` are the kinds of callers that may ask it (callers.py); with `bare`, one without user_id may set these fields alone.
    """

    request: type[Request]
    reply: type[Reply]
    role: Literal["nas", "compute", "both"]
    callers: tuple[Kind, ...]
    journaled: bool = True
    copies: bool = False
    frees: bool = False
    bare: frozenset[str] | None = None
