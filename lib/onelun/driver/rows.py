"""What agents list: a row is a JSON object on the wire, whose fields a release may add to, and a value here."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from onelun.errors import ProtocolError

_Row = TypeVar("_Row", bound=msgspec.Struct)


class VolumeRow(msgspec.Struct, frozen=True):
    """A volume of `list_zvols`, as far as actions ask."""

    zvol: str
    kind: str | None = None
    size_bytes: int = 0


class PlacementRow(msgspec.Struct, frozen=True):
    """A placement of `find_placements`, as far as actions ask."""

    disk: int
    zpool: str
    zvol: str
    kind: str | None = None


class SnapshotRow(msgspec.Struct, frozen=True):
    """A snapshot of `list_snapshots`, as far as actions ask."""

    snapshot: str
    made_at: float = 0.0


class DiskRow(msgspec.Struct, frozen=True):
    """A disk of `list_disks`, as far as actions ask. `snapshots` maps names to the bytes that each alone holds."""

    vm: int
    disk: int
    path: str
    used_bytes: int
    snapshots: dict[str, int] = {}


def rows_of(node: str, body: list[dict[str, Any]], kind: type[_Row]) -> list[_Row]:
    """The rows that `node` listed. Raises ProtocolError when one lacks a field, or has one of another type."""
    try:
        return msgspec.convert(body, list[kind])  # type: ignore[valid-type]
    except msgspec.ValidationError as error:
        raise ProtocolError(f"{node} lists what this release cannot read ({error}): upgrade it") from error
