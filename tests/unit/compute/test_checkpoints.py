"""store_file and fetch_file: a large file of a VM's directory onto a connected volume, and back."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from onelun.compute import checkpoints
from onelun.errors import CommandFailed, Conflict, NotFound, OutOfSpace, Rejected
from onelun.rpc.message import FetchFile, SetZvol, StoreFile

if TYPE_CHECKING:
    from tests.unit.compute.conftest import Bench

NAME = "checkpoint"


def vm(bench: Bench) -> str:
    return f"/{bench.place}/datastores//103/5"


def volume(bench: Bench, name: str = "one-vm-5-checkpoint") -> Path:
    return bench.place / name


async def connected(bench: Bench) -> SetZvol:
    offered = bench.offer("one-vm-5-checkpoint")
    await bench.ask(offered)
    return offered


def written(bench: Bench, size: int) -> bytes:
    data = os.urandom(size)
    os.makedirs(vm(bench), exist_ok=True)
    Path(vm(bench), NAME).write_bytes(data)
    return data


def asked(bench: Bench, kind: type[Any], offered: SetZvol, size: int, **other: Any) -> Any:
    fields = {
        "path": vm(bench),
        "name": NAME,
        "nas": "nas1",
        "zpool": "tank",
        "zvol": offered.zvol,
        "uuid": offered.uuid,
        "size_bytes": size,
    }
    return kind(**{**fields, **other})


@pytest.mark.parametrize("size", [1, 4095, (1 << 20) - 7, 1 << 20])
async def test_a_file_goes_onto_the_volume_and_comes_back(bench: Bench, size: int) -> None:
    offered = await connected(bench)
    data = written(bench, size)

    for _ in range(2):
        await bench.ask(asked(bench, StoreFile, offered, size))
    assert volume(bench).read_bytes()[:size] == data
    os.unlink(Path(vm(bench), NAME))
    for _ in range(2):
        await bench.ask(asked(bench, FetchFile, offered, size, mode=0o666))

    back = Path(vm(bench), NAME)
    assert back.read_bytes() == data
    assert back.stat().st_mode & 0o777 == 0o666
    assert os.listdir(vm(bench)) == [NAME]


async def test_a_file_of_another_size_is_not_stored(bench: Bench) -> None:
    offered = await connected(bench)
    written(bench, 5)

    with pytest.raises(Conflict, match="has 5 bytes, not 6"):
        await bench.ask(asked(bench, StoreFile, offered, 6))

    assert volume(bench).read_bytes() == bytes(1 << 20)


async def test_a_missing_file_is_told(bench: Bench) -> None:
    with pytest.raises(NotFound):
        await bench.ask(asked(bench, StoreFile, await connected(bench), 6))


@pytest.mark.parametrize(
    "other", [{"uuid": "6b2f7a52-6a04-4e9b-9d0b-3a2f0c0a7a11"}, {"zvol": "one-1"}, {"nas": "nas2"}, {"zpool": "fast"}]
)
@pytest.mark.parametrize("kind", [StoreFile, FetchFile])
async def test_only_the_volume_that_is_connected_and_meant_is_touched(
    bench: Bench, kind: type[Any], other: dict[str, str]
) -> None:
    offered = await connected(bench)
    data = written(bench, 6)

    with pytest.raises(Conflict, match="is not connected here"):
        await bench.ask(asked(bench, kind, offered, 6, **other))

    assert Path(vm(bench), NAME).read_bytes() == data
    assert volume(bench).read_bytes() == bytes(1 << 20)


@pytest.mark.parametrize("other", [{"path": "/etc"}, {"name": "../../x"}, {"size_bytes": 0}, {"zvol": "../x"}])
@pytest.mark.parametrize("kind", [StoreFile, FetchFile])
async def test_nothing_is_touched_outside(bench: Bench, kind: type[Any], other: dict[str, Any]) -> None:
    with pytest.raises(Rejected):
        await bench.ask(asked(bench, kind, await connected(bench), 6, **other))


async def test_a_volume_that_is_too_short_leaves_no_part_of_a_file(bench: Bench) -> None:
    offered = await connected(bench)
    data = written(bench, 6)

    with pytest.raises(CommandFailed, match="ended early"):
        await bench.ask(asked(bench, FetchFile, offered, 2 << 20))

    assert os.listdir(vm(bench)) == [NAME]
    assert Path(vm(bench), NAME).read_bytes() == data


async def test_what_is_no_block_device_is_not_written_to(bench: Bench) -> None:
    offered = await connected(bench)
    written(bench, 6)
    device = bench.agent._host._attachments.all()[0].device
    os.unlink(device)
    os.symlink("/dev/full", device)

    with pytest.raises(Conflict, match="is no block device"):
        await bench.ask(asked(bench, StoreFile, offered, 6))


async def test_a_full_directory_is_told_as_such(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    offered = await connected(bench)
    monkeypatch.setattr(bench.agent._directory, "begin_file", lambda *_: os.open("/dev/full", os.O_WRONLY))

    with pytest.raises(OutOfSpace, match="no space is left for 6 bytes"):
        await bench.ask(asked(bench, FetchFile, offered, 6))


async def test_what_does_not_move_on_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    offered = await connected(bench)
    monkeypatch.setattr(checkpoints, "_STALLED_S", 0.5)
    program = bench.place / "still.py"
    program.write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(checkpoints.program, "__file__", str(program))

    with pytest.raises(CommandFailed, match=r"nothing was copied for 0\.5 s"):
        await bench.ask(asked(bench, FetchFile, offered, 6))

    assert os.listdir(vm(bench)) == []


async def test_a_cancelled_copy_leaves_nothing_and_can_be_repeated(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = await connected(bench)
    data = written(bench, 6)
    await bench.ask(asked(bench, StoreFile, offered, 6))
    os.unlink(Path(vm(bench), NAME))
    program = bench.place / "still.py"
    program.write_text("import time\ntime.sleep(60)\n")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.program, "__file__", str(program))
        running = asyncio.ensure_future(bench.ask(asked(bench, FetchFile, offered, 6)))
        while ".new-checkpoint" not in (os.listdir(vm(bench)) if os.path.isdir(vm(bench)) else []):
            await asyncio.sleep(0.01)

        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running

    assert os.listdir(vm(bench)) == []
    await bench.ask(asked(bench, FetchFile, offered, 6))
    assert Path(vm(bench), NAME).read_bytes() == data
