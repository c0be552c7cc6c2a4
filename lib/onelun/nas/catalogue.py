"""What the NAS agent remembers beside the storage: attachments and how far they are, placements, debts, imports.

The storage is the truth about volumes; this is a cache of it plus what no volume can say. It is SQLite with
`synchronous=FULL`: what a method has returned from survives a crash. Calls are short (one commit) and made on the event
loop, so that each is atomic to everybody else (decision 0002). The file is 0600.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import msgspec

from onelun.errors import ProtocolError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS attachment (
  uuid TEXT NOT NULL, host TEXT NOT NULL, pool TEXT NOT NULL, zvol TEXT NOT NULL, iqn TEXT NOT NULL UNIQUE,
  epoch INTEGER NOT NULL, initiator TEXT NOT NULL, readonly INTEGER NOT NULL,
  state TEXT NOT NULL, beside TEXT, PRIMARY KEY (uuid, host));
CREATE TABLE IF NOT EXISTS placement (
  cloud TEXT NOT NULL, vm INTEGER NOT NULL, disk INTEGER NOT NULL, path TEXT NOT NULL,
  pool TEXT NOT NULL, zvol TEXT NOT NULL, uuid TEXT NOT NULL, host TEXT, PRIMARY KEY (cloud, vm, disk));
CREATE INDEX IF NOT EXISTS placement_uuid ON placement (uuid);
CREATE INDEX IF NOT EXISTS placement_path ON placement (path);
CREATE INDEX IF NOT EXISTS attachment_host ON attachment (host);
CREATE TABLE IF NOT EXISTS debt (
  iqn TEXT PRIMARY KEY, host TEXT NOT NULL, pool TEXT NOT NULL, zvol TEXT NOT NULL, uuid TEXT NOT NULL,
  epoch INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS import (
  uuid TEXT PRIMARY KEY, pool TEXT NOT NULL, zvol TEXT NOT NULL, iqn TEXT NOT NULL, epoch INTEGER NOT NULL,
  initiator TEXT NOT NULL, replaces TEXT);
"""

_VERSION = 2
# Rows that are read at once where there may be thousands: a few milliseconds of the event loop.
_PAGE = 500

# The states of an attachment row.
ATTACHING = "attaching"  # the intent is written; the host may or may not have the device
ATTACHED = "attached"  # the host has confirmed the device
DETACHING = "detaching"  # on its way out; its epoch never comes back
UNKNOWN = "unknown"  # the host did not answer: it may hold the device


class AttachmentRow(msgspec.Struct, frozen=True):
    """One host's attachment of one volume. `beside` is the host that has it too while a migration from it runs."""

    uuid: str
    host: str
    pool: str
    zvol: str
    iqn: str
    epoch: int
    initiator: str
    readonly: bool
    state: str
    beside: str | None = None


class Placement(msgspec.Struct, frozen=True):
    """Which volume stands behind a VM's disk and its path. `host` is None while no host has it (the VM is stopped)."""

    cloud: str
    vm: int
    disk: int
    path: str
    pool: str
    zvol: str
    uuid: str
    host: str | None = None


class Debt(msgspec.Struct, frozen=True):
    """A clean-up that an absent host still owes; its target is fenced already."""

    iqn: str
    host: str
    pool: str
    zvol: str
    uuid: str
    epoch: int


class ImportRow(msgspec.Struct, frozen=True):
    """A building volume that its builder writes over iSCSI. `replaces` is the UUID it takes the name of."""

    uuid: str
    pool: str
    zvol: str
    iqn: str
    epoch: int
    initiator: str
    replaces: str | None = None


_Row = TypeVar("_Row", bound=msgspec.Struct)

_ROWS: dict[type[msgspec.Struct], str] = {
    AttachmentRow: "attachment",
    Placement: "placement",
    Debt: "debt",
    ImportRow: "import",
}

_KEYS: dict[type[msgspec.Struct], str] = {
    AttachmentRow: "uuid, host",
    Placement: "cloud, vm, disk",
    Debt: "iqn",
    ImportRow: "uuid",
}


class Catalogue:
    """The rows, as frozen values. `put` replaces the row of the same key; `drop` of an absent one does nothing."""

    def __init__(self, path: str) -> None:
        """Open the catalogue at `path`, making it when there is none. Raises sqlite3.Error for what is none."""
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)
        if self._db.execute("PRAGMA user_version").fetchone()[0] == 1:
            self._db.execute("ALTER TABLE attachment ADD COLUMN beside TEXT")
        self._db.execute(f"PRAGMA user_version={_VERSION}")

    def close(self) -> None:
        """Close the file; the catalogue is of no use afterwards."""
        self._db.close()

    def meta(self, key: str) -> str | None:
        """The value kept under `key`."""
        row = self._db.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
        return None if row is None else str(row["value"])

    def set_meta(self, key: str, value: str) -> None:
        """Keep `value` under `key`."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def put(self, *rows: msgspec.Struct) -> None:
        """Write the rows in one transaction."""
        self.change(put=rows)

    def drop(self, *rows: msgspec.Struct) -> None:
        """Remove the rows in one transaction."""
        self.change(drop=rows)

    def change(self, *, put: Iterable[msgspec.Struct] = (), drop: Iterable[msgspec.Struct] = ()) -> None:
        """Remove and write rows in one transaction: all of it is durable, or none.

        Raises sqlite3.OperationalError when the disk is full or broken; a repeat finds what was there before.
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for row in drop:
                where, values = _key(row)
                self._db.execute(f"DELETE FROM {_ROWS[type(row)]} WHERE {where}", values)  # noqa: S608 our own names
            for row in put:
                self._put(row)
            self._db.execute("COMMIT")
        except BaseException:
            # Where the disk is full SQLite has ended the transaction itself.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _put(self, row: msgspec.Struct) -> None:
        # Not INSERT OR REPLACE: that would also remove another row that is equal in a UNIQUE column.
        fields = msgspec.structs.asdict(row)
        table, key = _ROWS[type(row)], _KEYS[type(row)]
        marks = ", ".join("?" * len(fields))
        update = ", ".join(f"{field}=excluded.{field}" for field in fields)
        self._db.execute(
            f"INSERT INTO {table} ({', '.join(fields)}) VALUES ({marks}) ON CONFLICT ({key}) DO UPDATE SET {update}",  # noqa: S608
            tuple(fields.values()),
        )

    def attachments(self, **where: str | int) -> list[AttachmentRow]:
        """The attachments whose columns equal `where`, in the order of their epochs."""
        return sorted(self._select(AttachmentRow, where), key=lambda row: row.epoch)

    def placements(self, **where: str | int) -> list[Placement]:
        """The placements whose columns equal `where`."""
        return self._select(Placement, where)

    def placement_pages(self, cloud: str) -> Iterator[list[Placement]]:
        """The placements of a cloud, by VM and disk, some hundreds at a time: whoever goes through them lets others have a turn.

        What is written or dropped meanwhile may be among them or not; all else is there once.
        """
        last = (-1, -1)
        while page := self._read(
            Placement,
            "SELECT * FROM placement WHERE cloud=? AND (vm, disk) > (?, ?) ORDER BY vm, disk LIMIT ?",
            (cloud, *last, _PAGE),
        ):
            yield page
            last = (page[-1].vm, page[-1].disk)

    def debts(self, **where: str | int) -> list[Debt]:
        """The debts whose columns equal `where`."""
        return self._select(Debt, where)

    def imports(self, **where: str | int) -> list[ImportRow]:
        """The imports whose columns equal `where`."""
        return self._select(ImportRow, where)

    def _select(self, kind: type[_Row], where: dict[str, str | int]) -> list[_Row]:
        clause = " AND ".join(f"{column}=?" for column in where) or "1"
        return self._read(kind, f"SELECT * FROM {_ROWS[kind]} WHERE {clause}", tuple(where.values()))  # noqa: S608

    def _read(self, kind: type[_Row], select: str, values: tuple[str | int, ...]) -> list[_Row]:
        try:
            return [msgspec.convert(dict(row), kind, strict=False) for row in self._db.execute(select, values)]
        except msgspec.ValidationError as error:
            raise ProtocolError(
                f"the catalogue has a row of the table {_ROWS[kind]} that cannot be read: {error}"
            ) from error


def _key(row: msgspec.Struct) -> tuple[str, tuple[Any, ...]]:
    match row:
        case AttachmentRow():
            return "uuid=? AND host=? AND epoch=?", (row.uuid, row.host, row.epoch)
        case Placement():
            return "cloud=? AND vm=? AND disk=? AND uuid=?", (row.cloud, row.vm, row.disk, row.uuid)
        case Debt():
            return "iqn=?", (row.iqn,)
        case ImportRow():
            return "uuid=?", (row.uuid,)
        case _:
            raise TypeError(f"{type(row).__name__} is no row of the catalogue")
