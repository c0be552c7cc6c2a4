"""The files of a backup on QEMU's own tools: a full one and increments, put together as OpenNebula's datastores do it."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.requires import requires

from onelun.beneath import Owner
from onelun.compute.qcow2 import Disk, needed_bytes, write_full, write_increment
from onelun.deadline import Deadline
from onelun.errors import CommandFailed

MIB = 1 << 20
CLUSTER = 1 << 16
ME = Owner(os.geteuid(), os.getegid())
Extents = list[tuple[int, int, bool]]


@pytest.fixture(autouse=True)
def tools() -> None:
    requires("qemu-img", "qemu-io")


@contextmanager
def new(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class Vm:
    """A disk that changes, the ranges that changed since the last backup, and the backups."""

    def __init__(self, directory: Path, size: int) -> None:
        self.directory = directory
        self.raw = directory / "raw"
        self.raw.touch()
        os.truncate(self.raw, size)
        self.changed: Extents = []
        self.files: list[Path] = []
        self.moments: list[bytes] = []
        self.seen: list[tuple[int, int]] = []

    @property
    def size(self) -> int:
        return self.raw.stat().st_size

    def write(self, offset: int, data: bytes) -> None:
        with self.raw.open("r+b") as file:
            file.seek(offset)
            file.write(data)
        self.changed.append((offset, len(data), True))

    def zero(self, offset: int, length: int, *, told: bool) -> None:
        """Zeros, written or discarded; `told` when the storage knows that they are."""
        with self.raw.open("r+b") as file:
            file.seek(offset)
            file.write(bytes(length))
        self.changed.append((offset, length, not told))

    def grow(self, size: int) -> None:
        os.truncate(self.raw, size)

    def disk(self) -> Disk:
        return Disk({"driver": "file", "filename": str(self.raw)}, self.size)

    async def backup(self) -> Path:
        path = self.directory / f"disk.0.{len(self.files)}"
        with new(path) as file:
            if not self.files:
                await write_full(self.disk(), file, ME, Deadline.after(60), self.progress)
            else:
                extents = sorted(self.changed)
                await write_increment(self.disk(), extents, file, ME, Deadline.after(60), self.progress)
        self.changed = []
        self.files.append(path)
        self.moments.append(self.raw.read_bytes())
        return path

    def progress(self, done: int, total: int) -> None:
        self.seen.append((done, total))


def qemu_img(*argv: str | Path) -> str:
    return subprocess.run(["qemu-img", *map(str, argv)], check=True, capture_output=True, text=True).stdout


def chained(files: list[Path]) -> None:
    """As OpenNebula's rsync and restic datastores lay a chain: each file over the one before, nothing of it looked at."""
    for file, under in zip(files[1:], files, strict=False):
        qemu_img("rebase", "-u", "-F", "qcow2", "-b", under, file)


def content(file: Path) -> bytes:
    raw = file.with_suffix(".flat")
    qemu_img("convert", "-O", "raw", file, raw)
    return raw.read_bytes()


def mapped(file: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(qemu_img("map", "--output=json", file))
    return found


@pytest.fixture
async def vm(tmp_path: Path) -> Vm:
    """Written, zeroed, discarded and grown between four backups."""
    noise = random.Random(4)
    vm = Vm(tmp_path, 8 * MIB)
    vm.write(0, noise.randbytes(6 * MIB))
    await vm.backup()
    vm.write(MIB + 512, noise.randbytes(3000))
    vm.zero(2 * MIB, 64 << 10, told=False)
    vm.zero(3 * MIB, 512 << 10, told=True)
    vm.zero(4 * MIB + 512, 1024, told=True)
    await vm.backup()
    vm.grow(12 * MIB + 512)
    vm.write(3 * MIB + (64 << 10), noise.randbytes(64 << 10))
    vm.write(12 * MIB, noise.randbytes(512))
    await vm.backup()
    vm.zero(0, 2 * MIB, told=True)
    await vm.backup()
    return vm


async def test_each_moment_comes_back_from_its_chain(vm: Vm) -> None:
    chained(vm.files)

    for file, moment in zip(vm.files, vm.moments, strict=True):
        assert content(file) == moment


async def test_increments_that_are_flattened_into_the_full_backup_keep_the_last_moment(vm: Vm) -> None:
    chained(vm.files)

    qemu_img("commit", "-f", "qcow2", "-b", vm.files[0], vm.files[-1])

    assert content(vm.files[0]) == vm.moments[-1]


async def test_the_files_are_sound_and_name_no_other_file(vm: Vm) -> None:
    for file in vm.files:
        qemu_img("check", file)
        assert "backing" not in qemu_img("info", "--output=json", file)


async def test_what_did_not_change_is_not_in_an_increment_and_zeros_are_there_without_data(vm: Vm) -> None:
    found = mapped(vm.files[1])

    at = {entry["start"]: entry for entry in found}
    assert at[0]["present"] is False
    assert (at[2 * MIB]["present"], at[2 * MIB]["zero"], at[2 * MIB]["data"]) == (True, True, False)
    assert (at[3 * MIB]["present"], at[3 * MIB]["zero"], at[3 * MIB]["data"]) == (True, True, False)
    held = sum(entry["length"] for entry in found if entry["data"])  # type: ignore[misc]
    assert held <= 4 * CLUSTER


async def test_an_increment_without_changes_is_an_empty_file_of_the_disk_s_size(tmp_path: Path) -> None:
    vm = Vm(tmp_path, 3 * MIB + 512)
    vm.write(0, b"x" * MIB)
    await vm.backup()
    await vm.backup()

    assert not any(entry["present"] for entry in mapped(vm.files[1]))

    chained(vm.files)
    assert content(vm.files[1]) == vm.moments[0]


async def test_progress_ends_with_all_of_it(vm: Vm) -> None:
    done, total = vm.seen[-1]

    assert (done, total) == (2 * MIB, 2 * MIB)


async def test_the_room_that_is_foreseen_is_enough(vm: Vm) -> None:
    extents = [(MIB + 512, 3000, True), (2 * MIB, 64 << 10, True), (3 * MIB, 512 << 10, False)]

    assert vm.files[1].stat().st_blocks * 512 <= needed_bytes(8 * MIB, extents)


async def test_a_disk_that_cannot_be_read_is_an_error_and_never_a_short_increment(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(b"x" * 8 * MIB)
    rules = tmp_path / "rules"
    rules.write_text('[inject-error]\nevent = "read_aio"\niotype = "read"\nerrno = "5"\nsector = "8192"\n')
    node = {"driver": "blkdebug", "config": str(rules), "image.driver": "file", "image.filename": str(raw)}
    disk = Disk(node, 8 * MIB)

    with new(tmp_path / "full") as file, pytest.raises(CommandFailed, match="qemu-img"):
        await write_full(disk, file, ME, Deadline.after(60), lambda *_: None)
    extents = [(0, MIB, True), (4 * MIB, MIB, True)]
    with new(tmp_path / "increment") as file, pytest.raises(CommandFailed, match=r"qemu-io did 1 of 2 steps.*rror"):
        await write_increment(disk, extents, file, ME, Deadline.after(60), lambda *_: None)


async def test_a_disk_that_is_not_there_is_told(tmp_path: Path) -> None:
    disk = Disk({"driver": "file", "filename": str(tmp_path / "none")}, MIB)

    with new(tmp_path / "increment") as file, pytest.raises(CommandFailed, match="No such file"):
        await write_increment(disk, [(0, MIB, True)], file, ME, Deadline.after(60), lambda *_: None)


async def test_very_many_ranges_take_one_run(tmp_path: Path) -> None:
    vm = Vm(tmp_path, 200 * MIB)
    await vm.backup()
    for number in range(1000):
        vm.write(number * 3 * CLUSTER, b"%04d" % number)
    await vm.backup()

    chained(vm.files)

    assert content(vm.files[1]) == vm.moments[1]
