"""Thin pools of LVM on a loop device, in a guest whose kernel has dm-thin."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Iterator

from tests.support.pools import MIB, DevicePool, Place, Pool
from tests.support.requires import requires

from onelun.nas.backends.base import Backend
from onelun.nas.backends.lvm.backend import LvmBackend

_DISK_BYTES = 640 * MIB
_POOL_BYTES = 256 * MIB
_LIMIT_S = 120
# What LVM says of a volume that somebody has open.
_IN_USE = re.compile(r"in use|resource busy|open logical volume|used by another device", re.IGNORECASE)
# LVM prints a warning when it starts from a process with descriptors of its own open.
_ENVIRONMENT = {**os.environ, "LC_ALL": "C", "LVM_SUPPRESS_FD_WARNINGS": "1"}


class LvmPool(DevicePool):
    """A thin pool of its own in the place's volume group."""

    shares = True
    places = 1000
    gives = frozenset(("discard",))
    many = 25

    def __init__(self, vg: str, thin_pool: str) -> None:
        self.vg = vg
        self.thin_pool = thin_pool
        self.backend = self.again()

    def again(self) -> Backend:
        return LvmBackend("tank", self.vg, self.thin_pool, udev_s=60.0)

    def put(self, name, content):
        size = ("-V", f"{len(content)}b", "--thinpool", self.thin_pool)
        lvm("lvcreate", "--type", "thin", *size, "-n", name, self.vg)
        path = f"/dev/{self.vg}/{name}"
        _fill(path, content)
        return path

    def documented(self):
        return "lvm", {"vg0": self.vg}

    def broken(self):
        return [
            ("no thin pool", self._renamed("lvrename", self.vg, self.thin_pool)),
            ("no volume group", self._renamed("vgrename", self.vg)),
            ("zero", self._unzeroed()),
            ("discards", self._without_discards()),
            ("full", self._filled()),
        ]

    @contextlib.contextmanager
    def _renamed(self, *argv):
        *command, name = argv
        away = f"{name}-away"
        lvm(*command, name, away)
        try:
            yield
        finally:
            lvm(*command, away, name)

    @contextlib.contextmanager
    def _unzeroed(self):
        lvm("lvchange", "--zero", "n", f"{self.vg}/{self.thin_pool}")
        try:
            yield
        finally:
            lvm("lvchange", "--zero", "y", f"{self.vg}/{self.thin_pool}")

    @contextlib.contextmanager
    def _without_discards(self):
        self._discards("ignore")
        try:
            yield
        finally:
            self._discards("passdown")

    def _discards(self, how: str) -> None:
        # Only of an inactive pool, which the change activates.
        lvm("lvchange", "--activate", "n", f"{self.vg}/{self.thin_pool}")
        lvm("lvchange", "--discards", how, f"{self.vg}/{self.thin_pool}")
        lvm("lvchange", "--activate", "y", f"{self.vg}/{self.thin_pool}")

    @contextlib.contextmanager
    def _filled(self):
        with self.filler(_POOL_BYTES * 9 // 10):
            yield

    @contextlib.contextmanager
    def filler(self, size_bytes: int) -> Iterator[str]:
        """A foreign volume that takes so much of the pool."""
        lvm(
            "lvcreate", "--type", "thin", "-V", f"{_POOL_BYTES}b", "--thinpool", self.thin_pool, "-n", "filler", self.vg
        )
        try:
            with open(f"/dev/{self.vg}/filler", "r+b") as file:
                for _ in range(size_bytes // MIB):
                    file.write(os.urandom(MIB))
                file.flush()
                os.fsync(file.fileno())
            yield f"{self.vg}/filler"
        finally:
            lvm("lvremove", f"{self.vg}/filler")


class Lvm(Place):
    """A volume group with extents of 1 MiB, and a thin pool that is emptied after each test: making one takes seconds."""

    # The kernel refuses two volume groups of one name, and tests may run beside each other.
    vg = f"onelun-test-{os.getpid()}"

    def __enter__(self):
        requires("root", "loop", "lvs", "thin_check", "udevadm", "losetup")
        with contextlib.ExitStack() as undo:
            disk = self.directory / "disk"
            with disk.open("wb") as file:
                file.truncate(_DISK_BYTES)
            undo.callback(disk.unlink)
            self.loop = output("losetup", "--find", "--show", str(disk)).strip()
            undo.callback(output, "losetup", "--detach", self.loop)
            lvm("pvcreate", "--metadatasize", "16m", self.loop)
            lvm("vgcreate", "--physicalextentsize", "1m", self.vg, self.loop)
            undo.callback(lvm, "vgremove", "--force", self.vg)
            undo.enter_context(self.thin_pool("pool"))
            self._undo = undo.pop_all()
        return self

    def __exit__(self, kind, error, trace):
        self._undo.close()

    @contextlib.contextmanager
    def fresh(self) -> Iterator[Pool]:
        try:
            yield LvmPool(self.vg, "pool")
        finally:
            lvm("lvremove", "--force", self.vg, "--select", "pool_lv=pool")
            tags = output("lvs", "--noheadings", "-o", "lv_tags", f"{self.vg}/pool").strip()
            if tags:
                lvm("lvchange", *(f"--deltag={tag}" for tag in tags.split(",")), f"{self.vg}/pool")

    @contextlib.contextmanager
    def thin_pool(
        self, name: str, *, size_bytes: int = _POOL_BYTES, metadata_bytes: int = 8 * MIB
    ) -> Iterator[LvmPool]:
        """A thin pool of those sizes, removed with all that is in it."""
        sizes = ("--size", f"{size_bytes}b", "--poolmetadatasize", f"{metadata_bytes}b", "--poolmetadataspare", "n")
        lvm("lvcreate", "--type", "thin-pool", *sizes, "--chunksize", "64k", "--name", name, self.vg)
        try:
            yield LvmPool(self.vg, name)
        finally:
            lvm("lvremove", "--force", f"{self.vg}/{name}")


def _fill(path: str, content: bytes) -> None:
    with open(path, "r+b") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def lvm(tool: str, *argv: str) -> str:
    """Run a command of LVM's, which says yes to itself; again while udev still looks into a volume that it is about."""
    until = time.monotonic() + _LIMIT_S
    while True:
        done = _run(tool, "--yes", *argv)
        if done.returncode == 0:
            return done.stdout
        late = not _IN_USE.search(done.stderr) or time.monotonic() > until
        assert not late, f"{tool} {' '.join(argv)}: {done.stderr}"
        output("udevadm", "settle", "--timeout=60")


def output(*argv: str) -> str:
    """What another tool prints. It must succeed."""
    done = _run(*argv)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
    return done.stdout


def _run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=_LIMIT_S, env=_ENVIRONMENT)
