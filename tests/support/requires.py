"""What a test needs of the machine. Missing, the test is skipped on a laptop and fails where CI=true."""

from __future__ import annotations

import os
import shutil

import pytest

# What a person installs to get a program, on Debian 12.
_PACKAGES = {
    "tgtd": "tgt",
    "iscsi-inq": "libiscsi-bin",
    "iscsi-ls": "libiscsi-bin",
    "qemu-io": "qemu-utils",
    "qemu-img": "qemu-utils",
    "qemu-storage-daemon": "qemu-system-common",
    "nbdfuse": "libnbd-bin",
    "rabbitmq-server": "rabbitmq-server",
    "mkfs.xfs": "xfsprogs",
    "mkfs.btrfs": "btrfs-progs",
    "losetup": "mount",
    "strace": "strace",
}
_PLACES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def requires(*needs: str) -> None:
    """Go on when all `needs` are met: names of programs, or `root`, `loop`, `fuse`, `netns`."""
    for need in needs:
        lacking = _lacking(need)
        if lacking is None:
            continue
        if os.environ.get("CI") == "true":
            pytest.fail(f"CI must have it: {lacking}", pytrace=False)
        pytest.skip(lacking)


def _lacking(need: str) -> str | None:
    if need == "root":
        return None if os.geteuid() == 0 else "needs root"
    if need == "loop":
        return None if os.path.exists("/dev/loop-control") else "needs loop devices (/dev/loop-control)"
    if need == "fuse":
        return None if os.path.exists("/dev/fuse") else "needs /dev/fuse"
    if need == "netns":
        return None if os.path.exists("/proc/self/ns/net") else "needs network namespaces"
    if shutil.which(need, path=_PLACES) is None:
        return f"needs {need} (package {_PACKAGES.get(need, need)})"
    return None
