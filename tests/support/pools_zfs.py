"""Datasets of a zpool of the test's own: on the first disk of the guest, else in a file."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
import uuid as uuids
from collections.abc import Iterator

from tests.support.pools import DevicePool, Place, Pool
from tests.support.requires import requires

from onelun.nas.backends.zfs.backend import ZfsBackend

UDEV_S = 120.0
_LIMIT_S = 120


def run(*argv: str) -> str:
    """Run a tool of the machine's own, for what a test arranges or looks up."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_LIMIT_S)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
    return done.stdout


class ZfsPool(DevicePool):
    """A dataset with volumes in it."""

    shares = True
    tells_branches = False
    places = 1000
    gives = frozenset(("thick", "zfs"))
    whole_seconds = True

    def __init__(self, zpool: str, dataset: str) -> None:
        self.zpool = zpool
        self.dataset = dataset
        self.backend = ZfsBackend("tank", dataset, udev_s=UDEV_S)

    def again(self):
        return ZfsBackend("tank", self.dataset, udev_s=UDEV_S)

    def put(self, name, content):
        run("zfs", "create", "-s", "-V", str(len(content)), f"{self.dataset}/{name}")
        path = f"/dev/zvol/{self.dataset}/{name}"
        until = time.monotonic() + UDEV_S
        while not os.path.exists(path):
            assert time.monotonic() < until, f"udev did not make {path}"
            time.sleep(0.05)
        with open(path, "r+b") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return path

    def documented(self):
        return "zfs", {"tank/onelun": self.dataset}

    def settle(self):
        run("zpool", "sync", self.zpool)

    def leaves(self, kind: str = "volume") -> list[str]:
        """What is below the dataset, as ZFS tells it."""
        listed = run("zfs", "list", "-H", "-t", kind, "-r", "-o", "name", self.dataset).split()
        return sorted(name.removeprefix(self.dataset + "/") for name in listed)

    def broken(self):
        return [
            ("no dataset", self._changed(("zfs", "rename", self.dataset, self.dataset + "-away"), self._back)),
            ("no zpool", self._exported()),
            ("read-only", self._read_only()),
            ("readonly=off", self._set("readonly", "on")),
            ("volmode=dev", self._set("volmode", "none")),
            ("full", self._reserved_by_others()),
        ]

    @contextlib.contextmanager
    def _changed(self, argv, undo):
        run(*argv)
        try:
            yield
        finally:
            undo()

    def _back(self):
        run("zfs", "rename", self.dataset + "-away", self.dataset)

    @contextlib.contextmanager
    def _exported(self):
        let_go("zpool", "export", self.zpool)
        try:
            yield
        finally:
            self._imported()

    def _imported(self, *options):
        settle()
        run("zpool", "import", "-d", self.place, *options, self.zpool)

    @contextlib.contextmanager
    def _read_only(self):
        let_go("zpool", "export", self.zpool)
        self._imported("-o", "readonly=on")
        try:
            yield
        finally:
            let_go("zpool", "export", self.zpool)
            self._imported()

    @contextlib.contextmanager
    def _reserved_by_others(self):
        free = int(run("zfs", "get", "-Hp", "-o", "value", "available", self.zpool))
        run("zfs", "create", "-o", f"reservation={free // 10 * 9}", f"{self.zpool}/others")
        try:
            yield
        finally:
            run("zfs", "destroy", f"{self.zpool}/others")

    @contextlib.contextmanager
    def _set(self, name, value):
        run("zfs", "set", f"{name}={value}", self.dataset)
        try:
            yield
        finally:
            run("zfs", "inherit", name, self.dataset)


class Zfs(Place):
    """A zpool."""

    def __enter__(self):
        requires("root", "zfs", "zpool", "udevadm")
        self.zpool = f"onelun{uuids.uuid4().hex[:8]}"
        disks = os.environ.get("ONELUN_LAB_DISKS", "").split()
        if disks:
            vdev = disks[0]
        else:
            vdev = str(self.directory / "vdev")
            with open(vdev, "wb") as file:
                file.truncate(2 << 30)
        self.vdev = vdev
        # The disk may be just what another pool has let go of.
        settle()
        let_go("zpool", "create", "-f", "-O", "mountpoint=none", "-O", "compression=off", self.zpool, vdev)
        return self

    def __exit__(self, kind, error, trace):
        let_go("zpool", "destroy", "-f", self.zpool)

    @contextlib.contextmanager
    def fresh(self) -> Iterator[Pool]:
        dataset = f"{self.zpool}/of/onelun"
        run("zfs", "create", "-p", dataset)
        pool = ZfsPool(self.zpool, dataset)
        pool.place = os.path.dirname(self.vdev)
        try:
            yield pool
        finally:
            let_go("zfs", "destroy", "-R", f"{self.zpool}/of")


def let_go(*argv: str) -> None:
    """Run a tool that needs disks or volumes closed, again while udev still looks into one."""
    until = time.monotonic() + _LIMIT_S
    while (done := subprocess.run(argv, capture_output=True, text=True, timeout=_LIMIT_S)).returncode != 0:
        assert time.monotonic() < until, f"{' '.join(argv)}: {done.stderr}"
        settle()


def settle() -> None:
    """Let udev look into what it has still to look into."""
    run("udevadm", "settle", "--timeout=60")
