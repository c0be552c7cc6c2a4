"""What QEMU guests boot from, beside the root they share: kernel, initramfs, and images of the root and of the modules.

Made once for exact versions of kernel and ZFS and kept in `qemu/` beside the root, so that they go when that goes.
"""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import time

from tests.support.lab import qemu_initramfs, zfs_modules
from tests.support.lab.machine import Say
from tests.support.lab.place import LabError, cache
from tests.support.lab.qemu_packages import PackageVersions, parse_versions
from tests.support.lab.root import PackageIndex, locked
from tests.support.sandbox.processes import run

# Debian has such a kernel for amd64 alone with all that the guests need.
_ARCHITECTURE = "amd64"
_KERNEL = "linux-image-cloud-amd64"
_BUSYBOX = "busybox-static"


def part(root: str, name: str) -> str:
    """The path of one: `vmlinuz`, `initramfs`, `modules.img` or `root.img`."""
    return os.path.join(os.path.dirname(root), "qemu", name)


def build_parts(root: str, say: Say) -> None:
    """Make them, unless they are there for the packages as they are now. It may be repeated."""
    if run("dpkg", "--print-architecture").strip() != _ARCHITECTURE:
        raise LabError(f"guests of the kind qemu need a machine of the architecture {_ARCHITECTURE}")
    with locked(cache("qemu.lock"), say):
        index = PackageIndex()
        versions = parse_versions(index.versions(_KERNEL, _BUSYBOX, zfs_modules.SOURCES))
        beside = os.path.dirname(root)
        path = os.path.join(beside, f"qemu-{_key(versions)}")
        if not os.path.isdir(path):
            _build(root, path, versions, index, say)
        # What guests of before run from they have open.
        os.symlink(os.path.basename(path), f"{path}.link")
        os.replace(f"{path}.link", os.path.join(beside, "qemu"))
        for old in glob.glob(os.path.join(beside, "qemu-*")):
            if old != path:
                shutil.rmtree(old)


def _key(versions: PackageVersions) -> str:
    parts = [versions.release, versions.kernel, versions.of(zfs_modules.SOURCES), versions.of(_BUSYBOX)]
    for path in (os.path.abspath(__file__), qemu_initramfs.__file__):
        with open(path) as file:
            parts.append(file.read())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _build(root: str, path: str, versions: PackageVersions, index: PackageIndex, say: Say) -> None:
    for stale in glob.glob(cache("making-*")):
        shutil.rmtree(stale)
    began = time.monotonic()
    new, work = cache("making-parts"), cache("making-work")
    for directory in (new, work):
        os.makedirs(directory)
    say(f"the kernel of QEMU guests: {versions.release}")
    kernel = f"{work}/kernel"
    index.unpack(f"linux-image-{versions.release}", kernel)
    index.unpack(_BUSYBOX, f"{work}/busybox")
    shutil.copy(f"{kernel}/boot/vmlinuz-{versions.release}", f"{new}/vmlinuz")
    modules = f"{kernel}/lib/modules/{versions.release}"
    zfs_modules.unpack(zfs_modules.modules(versions, index, f"{work}/zfs", say), f"{modules}/extra")
    _list_modules(root, kernel, versions.release)
    qemu_initramfs.make_initramfs(f"{new}/initramfs", f"{work}/initramfs", modules, f"{work}/busybox/bin/busybox")
    say("images of the root and of the modules")
    os.mkdir(f"{work}/tree")
    os.mkdir(f"{work}/tree/usr")
    os.rename(f"{kernel}/lib", f"{work}/tree/usr/lib")
    make_image(f"{new}/modules.img", f"{work}/tree")
    make_image(f"{new}/root.img", root)
    os.rename(new, path)
    shutil.rmtree(work)
    say(f"built {path} in {time.monotonic() - began:.0f} s")


def _list_modules(root: str, kernel: str, release: str) -> None:
    """depmod, which the guests' root has, and the machine need not."""
    mounted = 'mount --bind "$0" "$1/mnt" && exec chroot "$1" depmod -b /mnt "$2"'
    run("unshare", "--mount", "sh", "-c", mounted, kernel, root, release, timeout_s=60)


def make_image(path: str, tree: str) -> None:
    """A filesystem with what is in the directory `tree`, to be mounted read-only."""
    used_kib = int(run("du", "-sk", tree, timeout_s=60).split()[0])
    files = int(run("du", "-s", "--inodes", tree, timeout_s=60).split()[0])
    with open(path, "wb") as file:
        file.truncate((used_kib + used_kib // 8 + 16384) << 10)
    options = ("-O", "^has_journal,^resize_inode", "-m", "0", "-N", str(files + 64))
    run("mke2fs", "-q", "-F", "-t", "ext4", *options, "-d", tree, path, timeout_s=300)
