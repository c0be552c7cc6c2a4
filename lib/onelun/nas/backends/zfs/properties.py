"""The facts about a volume and a pool as ZFS properties, and `zfs get` read back.

Each fact is a user property of its own, so that `zfs get all` shows it to an operator. Attachments are JSON, cut into
properties because a value has at most 8191 bytes (zfsprops(7), "User Properties"). A child inherits its parent's user
properties; only what a dataset was given itself, or received with `zfs recv`, counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from onelun.errors import ProtocolError, Rejected
from onelun.model import Attachment, Attributes, Kind, Owner, Provisioning, State, Volume, Wipe
from onelun.numbers import is_number, number_in

_OURS = "io.onelun:"
_POOLS = "io.onelun.pool:"
_PIECE = 8000
_PIECES = 4
_ATTACHMENTS = ("attachments", *(f"attachments.{number}" for number in range(2, _PIECES + 1)))
_NAMES = (
    *("uuid", "name", "state", "kind", "cloud", "image", "regtime", "vm", "disk", "origin", "filled-from", "made-at"),
    *("made-by", "connected", "last-epoch", "trashed-at", "replaces", "past"),
    *("volblocksize", "compression", "provisioning", "wipe"),
    *_ATTACHMENTS,
)
AGENT = _POOLS + "agent"
CLOUD = _POOLS + "cloud"
SERIAL = _POOLS + "serial"
# "-" is what zfs prints for a user property that is not set; given as a value it reads back the same.
_NONE = "-"

COLUMNS = (
    *("type", "volsize", "used", "usedbydataset", "available", "quota", "origin", "readonly", "volmode", "keystatus"),
    *(AGENT, CLOUD, SERIAL),
    *(_OURS + name for name in _NAMES),
)


class Value(NamedTuple):
    """A property's value and where it comes from."""

    text: str
    source: str


class Facts(NamedTuple):
    """What `zfs get` said of one dataset."""

    path: str
    values: dict[str, Value]

    def native(self, name: str) -> str | None:
        """A property of ZFS's own; None when the dataset has none."""
        value = self.values.get(name)
        return None if value is None or value.text == _NONE else value.text

    def number(self, name: str) -> int:
        """A property of ZFS's own that is a number; 0 when the dataset has none. Raises ProtocolError for what is none."""
        return number_in(self.native(name) or "0", f"{name} of {self.path}")

    def user(self, name: str) -> str | None:
        """A user property that the dataset itself has."""
        value = self.values.get(name)
        own = value is not None and (value.source == "local" or value.source.startswith("received"))
        return value.text if value is not None and own and value.text not in (_NONE, "") else None

    def ours(self, name: str) -> str | None:
        """A fact of ours about a volume, by its short name."""
        return self.user(_OURS + name)


def parse(text: str) -> dict[str, Facts]:
    """What `zfs get -Hp -o name,property,value,source` printed, by dataset."""
    found: dict[str, Facts] = {}
    for line in text.splitlines():
        fields = line.split("\t")
        # Somebody's own user property may have any text in it; of ours none has a tab or an end of line.
        if len(fields) != 4:
            continue
        path, name, value, source = fields
        found.setdefault(path, Facts(path, {})).values[name] = Value(value, source)
    return found


def rows(text: str, columns: int) -> Iterator[list[str]]:
    """The rows that `zfs list -H` printed, of so many columns. Raises ProtocolError for one that has not so many."""
    for line in text.splitlines():
        row = line.split("\t")
        if len(row) != columns:
            raise ProtocolError(f"zfs list printed {line[:80]!r}, which has not {columns} columns")
        yield row


def volume_of(facts: Facts, pool: str, state: State) -> Volume:
    """The volume in a dataset. Raises ValueError when its facts are none."""
    if facts.native("type") != "volume" or facts.ours("uuid") is None or facts.ours("kind") is None:
        raise ValueError("it is no volume with a UUID and a kind")
    attachments = "".join(facts.ours(name) or "" for name in _ATTACHMENTS) or "[]"
    return Volume(
        pool=pool,
        name=facts.ours("name") or "",
        uuid=facts.ours("uuid") or "",
        size_bytes=facts.number("volsize"),
        state=state,
        owner=Owner(
            kind=Kind(facts.ours("kind") or ""),
            cloud=facts.ours("cloud"),
            image_id=_int(facts.ours("image")),
            regtime=_int(facts.ours("regtime")),
            vm_id=_int(facts.ours("vm")),
            disk_id=_int(facts.ours("disk")),
        ),
        origin=facts.ours("origin"),
        filled_from=facts.ours("filled-from"),
        made_at=seconds_in(facts.ours("made-at")),
        connected=facts.ours("connected") == "yes",
        last_epoch=_int(facts.ours("last-epoch")) or 0,
        attachments=msgspec.json.decode(attachments, type=tuple[Attachment, ...]),
        attributes=Attributes(
            volblocksize_bytes=_int(facts.ours("volblocksize")),
            compression=facts.ours("compression"),
            provisioning=Provisioning(provisioning) if (provisioning := facts.ours("provisioning")) else None,
            wipe=Wipe(wipe) if (wipe := facts.ours("wipe")) else None,
        ),
    )


def settings(volume: Volume, **more: str | None) -> Iterator[str]:
    """`property=value` for each fact about the volume, and for `more` (short names, "_" for "-").

    Raises Rejected when there are more attachments than the properties can hold.
    """
    owner = volume.owner
    facts: dict[str, object] = {
        "uuid": volume.uuid,
        "name": volume.name,
        "state": volume.state,
        "kind": owner.kind,
        "cloud": owner.cloud,
        "image": owner.image_id,
        "regtime": owner.regtime,
        "vm": owner.vm_id,
        "disk": owner.disk_id,
        "origin": volume.origin,
        "filled-from": volume.filled_from,
        "made-at": repr(volume.made_at),
        "connected": "yes" if volume.connected else "no",
        "last-epoch": volume.last_epoch,
        "volblocksize": volume.attributes.volblocksize_bytes,
        "compression": volume.attributes.compression,
        "provisioning": volume.attributes.provisioning,
        "wipe": volume.attributes.wipe,
        **_attachments(volume),
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    return (setting(name, value) for name, value in facts.items())


def setting(name: str, value: object) -> str:
    """`property=value` for one fact, by its short name."""
    return f"{_OURS}{name}={_NONE if value is None else value}"


def forgotten() -> tuple[str, ...]:
    """`property=value` that takes back every fact about a volume."""
    return tuple(setting(name, None) for name in _NAMES)


def _attachments(volume: Volume) -> dict[str, str | None]:
    text = msgspec.json.encode(volume.attachments).decode()
    pieces = [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]
    if len(pieces) > _PIECES:
        raise Rejected(f"{volume.name} has {len(volume.attachments)} attachments: its properties cannot hold more")
    return {name: pieces[index] if index < len(pieces) else None for index, name in enumerate(_ATTACHMENTS)}


def _int(text: str | None) -> int | None:
    return None if text is None else count_in(text)


def count_in(text: str) -> int:
    """A whole number among the facts. Raises ValueError."""
    if not is_number(text):
        raise ValueError(f"{text[:40]!r} is no number")
    return int(text)


def seconds_in(text: str | None) -> float:
    """A time among the facts, in seconds since the epoch; 0 for none. Raises ValueError."""
    seconds = float(text or 0.0)
    if not math.isfinite(seconds):
        raise ValueError(f"{seconds} is no time")
    return seconds
