"""The facts of volumes, snapshots and pools as LVM tags: one tag a fact, `onelun.KEY=VALUE`.

A tag has at most 1024 characters of A-Z a-z 0-9 _ + . - / = ! : & # (lvm(8), "Tags"); any other is written `!` and two
hexadecimal digits. Tags that do not begin with `onelun.` are the operator's: they are neither read nor removed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec

from onelun.errors import Rejected
from onelun.model import Attributes, Owner, Snapshot, Volume
from onelun.numbers import is_number

_PREFIX = "onelun."
_LONGEST = 1024
_SPECIAL = re.compile(rb"[^A-Za-z0-9_.:/+-]")
_ESCAPED = re.compile(rb"!([0-9a-f]{2})")
_ATTACHMENT = "attachment."
# What the LV itself tells, or its place.
_ELSEWHERE = ("pool", "size_bytes", "owner", "attachments", "attributes")

_Struct = TypeVar("_Struct", bound=msgspec.Struct)


class UnreadableError(Exception):
    """The tags are no facts."""


class Replacement(NamedTuple):
    """That a volume took its name from the volume `uuid` at that time (seconds since the epoch)."""

    uuid: str
    at: float


class VolumeFacts(msgspec.Struct, frozen=True):
    """What a volume's tags tell. `replaces` is never taken back: publishing is the only time that one is replaced."""

    volume: Volume
    trashed_at: float | None = None
    replaces: Replacement | None = None


class SnapshotFacts(msgspec.Struct, frozen=True):
    """What a snapshot's tags tell. `of` is the UUID of its volume."""

    of: str
    snapshot: Snapshot


class PoolFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the thin pool's tags tell: the agent that owns it, the cloud that it serves, the catalogue's serial number."""

    owner: str | None = None
    cloud: str | None = None
    serial: int = 0


_KINDS = (Volume, Owner, Attributes, PoolFacts)
_KEYS = frozenset(field for kind in _KINDS for field in kind.__struct_fields__) | frozenset(
    ("trashed_at", "replaces", "snapshot", "of")
)


def volume_tags(facts: VolumeFacts) -> frozenset[str]:
    """A volume's facts as tags. Raises Rejected when one does not fit into a tag."""
    plain: dict[str, Any] = msgspec.to_builtins(facts.volume)
    told = {key: value for key, value in plain.items() if key not in _ELSEWHERE}
    told |= plain["owner"] | plain.get("attributes", {})
    for number, attachment in enumerate(plain.get("attachments", ())):
        told[f"{_ATTACHMENT}{number}"] = "#".join(f"{key}={_written(value)}" for key, value in attachment.items())
    if facts.trashed_at is not None:
        told["trashed_at"] = facts.trashed_at
    if facts.replaces is not None:
        told["replaces"] = f"{facts.replaces.uuid}#{facts.replaces.at!r}"
    return _tags(told)


def read_volume(pool: str, uuid: str, size_bytes: int, tags: Iterable[str]) -> VolumeFacts:
    """The facts of the volume with that UUID and size. Raises UnreadableError."""
    told = _told(tags)
    if told.get("uuid") != uuid:
        raise UnreadableError(f"its tags are of {told.get('uuid')}")
    attachments = [(key.removeprefix(_ATTACHMENT), told[key]) for key in told if key.startswith(_ATTACHMENT)]
    if not all(is_number(number) for number, _ in attachments):
        raise UnreadableError("an attachment has no number")
    attachments.sort(key=lambda each: int(each[0]))
    volume: dict[str, object] = {
        **_read(told, Volume),
        "pool": pool,
        "size_bytes": size_bytes,
        "owner": _read(told, Owner),
        "attributes": _read(told, Attributes),
        "attachments": [_fields(text) for _, text in attachments],
    }
    replaces = told["replaces"].split("#") if "replaces" in told else None
    return _made({"volume": volume, "trashed_at": told.get("trashed_at"), "replaces": replaces}, VolumeFacts)


def snapshot_tags(facts: SnapshotFacts) -> frozenset[str]:
    """A snapshot's facts as tags."""
    return _tags({"snapshot": facts.snapshot.name, "of": facts.of, "made_at": facts.snapshot.made_at})


def read_snapshot(of: str, size_bytes: int, tags: Iterable[str]) -> SnapshotFacts:
    """The facts of a snapshot, of that size, of the volume with the UUID `of`. Raises UnreadableError."""
    told = _told(tags)
    if told.get("of") != of:
        raise UnreadableError(f"its tags are of a snapshot of {told.get('of')}")
    snapshot = {"name": _unescaped(told.get("snapshot", "")), "made_at": told.get("made_at"), "size_bytes": size_bytes}
    return _made({"of": of, "snapshot": snapshot}, SnapshotFacts)


def pool_tags(facts: PoolFacts) -> frozenset[str]:
    """A pool's facts as tags."""
    return _tags(msgspec.to_builtins(facts))


def read_pool(tags: Iterable[str]) -> PoolFacts:
    """The pool's facts; empty ones for a new pool. Raises UnreadableError."""
    return _made(_read(_told(tags), PoolFacts), PoolFacts)


def ours(tags: Iterable[str]) -> frozenset[str]:
    """Those of the tags that are facts of ours; what a later release may have added is not, and stays."""
    return frozenset(
        tag for tag in tags if tag.startswith(_PREFIX) and _known(tag.removeprefix(_PREFIX).partition("=")[0])
    )


def _known(key: str) -> bool:
    return key in _KEYS or key.startswith(_ATTACHMENT)


def _tags(told: Mapping[str, Any]) -> frozenset[str]:
    tags = frozenset(
        f"{_PREFIX}{key}={value if key == 'replaces' or key.startswith(_ATTACHMENT) else _written(value)}"
        for key, value in told.items()
        if value is not None
    )
    for tag in tags:
        if len(tag) > _LONGEST:
            raise Rejected(f"{tag[:40]}... cannot be kept: an LVM tag has at most {_LONGEST} characters")
    return tags


def _told(tags: Iterable[str]) -> dict[str, str]:
    pairs = (tag.removeprefix(_PREFIX).partition("=") for tag in ours(tags))
    return {key: value for key, _, value in pairs}


def _read(told: Mapping[str, str], kind: type[msgspec.Struct]) -> dict[str, object]:
    return {key: _unescaped(told[key]) for key in kind.__struct_fields__ if key in told}


def _fields(text: str) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in text.split("#"))
    return {key: _unescaped(value) for key, _, value in pairs}


def _made(told: Mapping[str, object], kind: type[_Struct]) -> _Struct:
    try:
        # Not strict: every value of a tag is text.
        return msgspec.convert(told, kind, strict=False)
    except msgspec.ValidationError as error:
        raise UnreadableError(str(error)) from error


def _written(value: object) -> str:
    text = repr(value) if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
    return _SPECIAL.sub(lambda found: b"!%02x" % found[0][0], text.encode()).decode()


def _unescaped(text: str) -> str:
    try:
        return _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), text.encode()).decode()
    except UnicodeDecodeError as error:
        raise UnreadableError(f"{text[:40]!r} is no text") from error
