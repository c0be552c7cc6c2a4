"""Files of backups on a host: what is refused before anything is read, and what ends a writing."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from onelun.compute import backups
from onelun.compute.agent import ComputeAgent
from onelun.config import Limits
from onelun.errors import Cancelled, CommandFailed, OutOfSpace, Rejected
from onelun.rpc.message import RemoveEntry, WriteBackup

if TYPE_CHECKING:
    from tests.unit.compute.conftest import Bench

MIB = 1 << 20


@pytest.fixture
def port() -> Iterator[int]:
    """A portal that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def request(bench: Bench, port: int, **other: Any) -> WriteBackup:
    told: dict[str, Any] = {
        "path": f"{bench.place}/datastores//103/5",
        "name": "backup/disk.0.0",
        "target": "iqn.2026-11.io.onelun.nas1:tank.read-1.e1",
        "address": "127.0.0.1",
        "port": port,
        "user": "e1",
        "secret": "secret-of-16-chr",
        "lun": 1,
        "size_bytes": 8 * MIB,
    }
    return WriteBackup(**{**told, **other})


def writing(monkeypatch: pytest.MonkeyPatch, write: Callable[[int], Awaitable[None]]) -> None:
    """Write in this way in the place of QEMU, which needs a target."""

    async def full(disk: object, file: int, *_: object) -> None:
        await write(file)

    monkeypatch.setattr(backups, "write_full", full)


def made(bench: Bench) -> list[str]:
    place = Path(f"{bench.place}/datastores/103/5")
    return sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())


async def done(file: int) -> None:
    os.write(file, b"content")


async def for_ever(file: int) -> None:
    os.write(file, b"half")
    await asyncio.sleep(60)


async def test_a_file_takes_its_name_when_it_is_complete(
    bench: Bench, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing(monkeypatch, done)

    for _ in range(2):
        await bench.ask(request(bench, port))

    path = Path(f"{bench.place}/datastores/103/5/backup/disk.0.0")
    assert path.read_bytes() == b"content"
    assert path.stat().st_mode & 0o777 == 0o640
    assert made(bench) == ["backup/disk.0.0"]


async def test_a_writing_that_fails_leaves_nothing_and_the_file_of_before(
    bench: Bench, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(file: int) -> None:
        raise CommandFailed("qemu-img failed with status 1: Input/output error")

    writing(monkeypatch, done)
    await bench.ask(request(bench, port))
    writing(monkeypatch, fail)

    with pytest.raises(CommandFailed, match="Input/output error"):
        await bench.ask(request(bench, port))

    assert made(bench) == ["backup/disk.0.0"]


async def test_what_is_begun_anew_ends_the_writing_of_before(
    bench: Bench, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing(monkeypatch, for_ever)
    first = asyncio.ensure_future(bench.ask(request(bench, port)))
    await _until(lambda: made(bench) == ["backup/.new-disk.0.0"])
    writing(monkeypatch, done)

    await bench.ask(request(bench, port))

    with pytest.raises(Cancelled, match="begun anew"):
        await first
    assert made(bench) == ["backup/disk.0.0"]


async def test_removing_the_backup_ends_its_writing(bench: Bench, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    writing(monkeypatch, for_ever)
    first = asyncio.ensure_future(bench.ask(request(bench, port)))
    await _until(lambda: made(bench) == ["backup/.new-disk.0.0"])

    await bench.ask(RemoveEntry(path=f"{bench.place}/datastores/103/5", name="backup"))

    with pytest.raises(Cancelled):
        await first
    assert made(bench) == []


async def test_a_request_that_is_given_up_leaves_nothing(
    bench: Bench, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing(monkeypatch, for_ever)
    asked = asyncio.ensure_future(bench.ask(request(bench, port)))
    await _until(lambda: made(bench) == ["backup/.new-disk.0.0"])

    asked.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asked
    assert made(bench) == []


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"name": "disk.0"}, "is no file of a backup"),
        ({"name": "backup/../disk.0.0"}, "is no file of a backup"),
        ({"name": "backup/disk.0"}, "is no file of a backup"),
        ({"path": "/etc"}, "not below the datastore directory"),
        ({"size_bytes": 0}, "must be between 1 byte"),
        ({"extents": ((8 * MIB, 512, True),)}, "is none of a disk of"),
        ({"extents": ((MIB, 512, True), (0, 512, True))}, "out of order"),
        ({"extents": ((0, MIB, True), (512, 512, False))}, "out of order"),
        ({"extents": ((0, 0, True),)}, "is none of a disk of"),
        ({"extents": ((-512, 512, True),)}, "is none of a disk of"),
    ],
)
async def test_what_cannot_be_is_refused(bench: Bench, port: int, told: dict[str, Any], reason: str) -> None:
    with pytest.raises(Rejected, match=reason):
        await bench.ask(request(bench, port, **told))

    assert made(bench) == []


async def test_a_portal_that_cannot_be_reached_is_named(bench: Bench) -> None:
    with pytest.raises(CommandFailed, match=r"this host cannot reach the iSCSI portal 127.0.0.1:1:"):
        await bench.ask(request(bench, 1))

    assert made(bench) == []


async def test_an_increment_without_room_is_refused_before_it_is_read(bench: Bench, port: int) -> None:
    size = 1 << 50

    with pytest.raises(OutOfSpace, match=r"disk.0.0 needs up to .* GiB, and its filesystem has .* left"):
        await bench.ask(request(bench, port, size_bytes=size, extents=((0, size, True),)))

    assert made(bench) == []


async def test_a_filesystem_that_becomes_full_is_told_as_such(
    bench: Bench, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(file: int) -> None:
        raise CommandFailed("qemu-img failed with status 1: error while writing: No space left on device")

    writing(monkeypatch, full)

    with pytest.raises(OutOfSpace, match=r"became full while .*disk.0.0 was written"):
        await bench.ask(request(bench, port))


async def test_backups_are_written_where_opennebula_keeps_them_elsewhere(
    bench: Bench, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = bench.place / "elsewhere"
    elsewhere.mkdir()
    bench.agent.close()
    config = msgspec.structs.replace(bench.agent._config, backups=str(elsewhere))
    bench.agent = ComputeAgent(config, Limits(), bench.connector)
    await bench.agent.start()
    writing(monkeypatch, done)

    await bench.ask(request(bench, port, path=f"{elsewhere}/5"))
    with pytest.raises(Rejected, match=r"should be .*/elsewhere/<VM>"):
        await bench.ask(request(bench, port, path=f"{elsewhere}/x"))

    assert (elsewhere / "5" / "backup" / "disk.0.0").read_bytes() == b"content"


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)
