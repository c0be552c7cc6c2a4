"""What a test needs of the machine. Missing, the test is skipped on a laptop and fails where CI=true.

What needs the kernel of a guest of scripts/lab is marked `guest("lvm")` and the like. Inside a guest ONELUN_LAB names what
that guest has (`ONELUN_LAB=lvm,lio,iscsi`): then those tests run, and nothing is skipped. Elsewhere they are deselected,
with the number and the reason at the end: they are scripts/lab's to run.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter

import pytest

# What a person installs to get a program, on Debian 12.
_PACKAGES = {
    "tgtd": "tgt",
    "iscsi-inq": "libiscsi-bin",
    "iscsi-readcapacity16": "libiscsi-bin",
    "iscsi-ls": "libiscsi-bin",
    "iscsiadm": "open-iscsi",
    "iscsid": "open-iscsi",
    "qemu-io": "qemu-utils",
    "qemu-img": "qemu-utils",
    "qemu-storage-daemon": "qemu-system-common",
    "nbdfuse": "libnbd-bin",
    "rabbitmq-server": "rabbitmq-server",
    "mkfs.xfs": "xfsprogs",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.ntfs": "ntfs-3g",
    "mkfs.vfat": "dosfstools",
    "losetup": "mount",
    "lvs": "lvm2",
    "thin_check": "thin-provisioning-tools",
    "zfs": "zfsutils-linux",
    "zpool": "zfsutils-linux",
    "udevadm": "udev",
    "strace": "strace",
    "xorriso": "xorriso",
    "systemd-analyze": "systemd",
}
_PLACES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_GUEST = "guest"


def requires(*needs: str) -> None:
    """Go on when all `needs` are met: names of programs, or `root`, `loop`, `fuse`, `netns`."""
    for need in needs:
        lacking = _lacking(need)
        if lacking is None:
            continue
        if os.environ.get("CI") == "true" or guest_parts():
            pytest.fail(f"CI must have it: {lacking}", pytrace=False)
        pytest.skip(lacking)


def guest_parts() -> frozenset[str]:
    """What the guest that this runs in has; empty on a machine that is none of scripts/lab's guests."""
    return frozenset(filter(None, os.environ.get("ONELUN_LAB", "").split(",")))


def guest(*parts: str) -> pytest.MarkDecorator:
    """The mark of what needs the kernel of a guest that has all `parts`: zfs, lvm, lio, iscsi."""
    return pytest.mark.guest(*parts)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what is for other places than this one."""
    present = guest_parts()
    elsewhere = [item for item in items if _guest_parts_of(item) - present]
    if elsewhere:
        items[:] = [item for item in items if not _guest_parts_of(item) - present]
        config.hook.pytest_deselected(items=elsewhere)
        config.stash[_ELSEWHERE] = Counter(
            part for item in elsewhere for part in sorted(_guest_parts_of(item) - present)
        )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was deselected, and why."""
    counts = config.stash.get(_ELSEWHERE, None)
    if counts:
        told = ", ".join(f"{part} {count}" for part, count in sorted(counts.items()))
        terminalreporter.write_line(
            f"Tests that need the kernel of a guest are deselected here ({told}): scripts/lab test runs them."
        )


_ELSEWHERE = pytest.StashKey[Counter[str]]()


def _guest_parts_of(item: pytest.Item) -> frozenset[str]:
    return frozenset(part for mark in item.iter_markers(_GUEST) for part in mark.args)


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
