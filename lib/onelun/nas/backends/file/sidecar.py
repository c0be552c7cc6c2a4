"""The facts that stand beside a volume's data, and the pool's own: small JSON files, replaced in one durable step."""

from __future__ import annotations

import contextlib
import os
from typing import TypeVar

import msgspec

from onelun.model import Snapshot, Volume

VOLUME_FILE = "volume.json"
POOL_FILE = ".pool.json"
# What is written first and then renamed; one that is left over after a crash means nothing.
NEW_SUFFIX = ".new"
_MOST_BYTES = 1 << 20


class VolumeFacts(msgspec.Struct, frozen=True):
    """`volume.json`. `trashed_at` counts only in the trash: it is written before the volume goes there.

    `incoming` names the file that is to become the data, when a revert was cut off before it did; its name is used once.
    """

    volume: Volume
    trashed_at: float | None = None
    incoming: str | None = None
    format: int = 1


class PoolFacts(msgspec.Struct, frozen=True):
    """`.pool.json`: the agent that owns the pool, the cloud that it serves, the catalogue's serial number."""

    owner: str | None = None
    cloud: str | None = None
    serial: int = 0
    format: int = 1


class SnapshotFacts(msgspec.Struct, frozen=True):
    """`snapshot-NAME.json`: with it the snapshot exists."""

    snapshot: Snapshot
    format: int = 1


_Facts = TypeVar("_Facts", VolumeFacts, PoolFacts, SnapshotFacts)


class UnreadableError(Exception):
    """The file is there and holds no facts."""


def read_volume(directory: int) -> VolumeFacts | None:
    """The facts in the open directory, None without the file. Raises UnreadableError, OSError."""
    return _read(directory, VOLUME_FILE, VolumeFacts)


def write_volume(directory: int, facts: VolumeFacts) -> None:
    """Replace the facts in the open directory, durably. Raises OSError, and then the old ones stay."""
    _write(directory, VOLUME_FILE, facts)


def read_snapshot(directory: int, file: str) -> SnapshotFacts | None:
    """The facts in that file of the open directory, None without it. Raises UnreadableError, OSError."""
    return _read(directory, file, SnapshotFacts)


def write_snapshot(directory: int, file: str, facts: SnapshotFacts) -> None:
    """Write the facts into that file of the open directory, durably. Raises OSError, and then there is no such file."""
    _write(directory, file, facts)


def read_pool(directory: int) -> PoolFacts:
    """The pool's facts; empty ones for a new pool. Raises UnreadableError, OSError."""
    return _read(directory, POOL_FILE, PoolFacts) or PoolFacts()


def write_pool(directory: int, facts: PoolFacts) -> None:
    """Replace the pool's facts, durably. Raises OSError, and then the old ones stay."""
    _write(directory, POOL_FILE, facts)


def _read(directory: int, name: str, kind: type[_Facts]) -> _Facts | None:
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        # No more than there is: a buffer of a megabyte for each of thousands of files costs more than the files.
        text = file.read(min(os.fstat(descriptor).st_size, _MOST_BYTES))
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnreadableError(f"{name}: {error}") from error


def _write(directory: int, name: str, facts: VolumeFacts | PoolFacts | SnapshotFacts) -> None:
    aside = name + NEW_SUFFIX
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(aside, flags, 0o600, dir_fd=directory)
    try:
        with open(descriptor, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(facts)))
            file.flush()
            os.fsync(descriptor)
        os.rename(aside, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(aside, dir_fd=directory)
        raise
    os.fsync(directory)
