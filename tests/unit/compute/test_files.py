"""New files in VMs' directories: whole, or nothing of them, whoever is cancelled when."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from onelun.compute.files import new_file, opened_file
from onelun.directory import Directory
from onelun.errors import NotFound


@pytest.fixture
def vm(tmp_path: Path) -> Path:
    """A VM's directory below a datastore directory."""
    place = tmp_path / "103" / "5"
    place.mkdir(parents=True)
    return place


@pytest.fixture
def directory(tmp_path: Path, vm: Path) -> Directory:
    return Directory(str(tmp_path), f"{os.getuid()}:{os.getgid()}")


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_file_has_its_name_and_mode_when_it_is_whole(directory: Directory, vm: Path) -> None:
    async with new_file(directory, str(vm), "checkpoint", mode=0o600) as file:
        os.write(file, b"memory")
        assert not (vm / "checkpoint").exists()

    assert (vm / "checkpoint").read_bytes() == b"memory"
    assert (vm / "checkpoint").stat().st_mode & 0o777 == 0o600
    async with opened_file(directory, str(vm), "checkpoint") as file:
        assert os.read(file, 10) == b"memory"


async def test_nothing_is_left_of_one_that_failed(directory: Directory, vm: Path) -> None:
    before = open_files()
    with pytest.raises(NotFound):
        async with new_file(directory, str(vm), "checkpoint"):
            raise NotFound("the volume is gone")

    assert os.listdir(vm) == []
    assert open_files() == before


async def test_nothing_is_left_of_one_that_was_cancelled_while_it_was_begun(
    directory: Directory, vm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, begun, go_on = directory.begin_file, threading.Event(), threading.Event()

    def slow(path: str, name: str) -> int:
        begun.set()
        go_on.wait(60)
        return begin(path, name)

    async def write() -> None:
        async with new_file(directory, str(vm), "checkpoint"):
            raise AssertionError("nobody waits for it")

    monkeypatch.setattr(directory, "begin_file", slow)
    await asyncio.to_thread(lambda: None)
    before = open_files()
    writing = asyncio.create_task(write())
    await asyncio.to_thread(begun.wait, 60)
    writing.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await writing

    assert os.listdir(vm) == []
    assert open_files() == before
