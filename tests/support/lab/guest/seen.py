"""What is really there on a guest, as JSON, for scripts/chaos. Standard library alone, and nothing of onelun.

seen.py nas GROUP                       volumes of a volume group with their contents, targets, and what belongs to neither
seen.py host DATASTORES                 disks with the bytes that are read from them, entries of VMs, what belongs to none
seen.py write GROUP VOLUME OFFSET       write stdin into a volume that is not attached
seen.py put DISK OFFSET                 write stdin into a disk
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import re
import subprocess
import sys

_MIB = 1 << 20
_PAGE = 4096
_BLKFLSBUF = 0x1261
_LIMIT_S = 60
_LINKS = "/dev/onelun"
_SHOWN = ("ready", "deleting")
_LIO = "/sys/kernel/config/target"


def run(*argv: str) -> str:
    """What a command printed."""
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, timeout=_LIMIT_S).stdout


def content(path: str) -> tuple[int, str]:
    """A device's size, and the sum of tests.support.observed; past all caches."""
    total = hashlib.sha256()
    with open(path, "rb") as device:
        fcntl.ioctl(device, _BLKFLSBUF)
        size = device.seek(0, os.SEEK_END)
        device.seek(0)
        if device.read(_PAGE).endswith(b"SWAPSPACE2"):
            return size, "swap"
        for offset in range(0, size, _MIB):
            device.seek(offset)
            block = device.read(_MIB)
            if block.strip(b"\0"):
                total.update(b"%d:" % offset + block)
    return size, total.hexdigest()


def rows(group: str) -> list[dict[str, str]]:
    """The group's volumes but the thin pools, each with its tags of ours."""
    columns = "lv_name,lv_tags,lv_active,pool_lv"
    found = json.loads(run("lvs", "--reportformat", "json", "-o", columns, group))
    listed = [row for row in found["report"][0]["lv"] if row["pool_lv"]]
    for row in listed:
        told = (tag.partition("=") for tag in row["lv_tags"].split(",") if tag.startswith("onelun."))
        row.update({key: value for key, _, value in told})
    return listed


def shown(listed: list[dict[str, str]]) -> dict[str, dict[str, str]]:
    """The visible volumes by name: one that another replaces is none."""
    volumes = [row for row in listed if row.get("onelun.state") in _SHOWN]
    replaced = {row["onelun.replaces"].partition("#")[0] for row in volumes if "onelun.replaces" in row}
    return {row["onelun.name"]: row for row in volumes if row["onelun.uuid"] not in replaced}


@contextlib.contextmanager
def active(group: str, listed: list[dict[str, str]]):
    """Have them all active meanwhile."""
    names = [f"{group}/{row['lv_name']}" for row in listed if not row["lv_active"]]
    if names:
        run("lvchange", "-qq", "-ay", "-K", *names)
    try:
        yield
    finally:
        if names:
            run("lvchange", "-qq", "-an", *names)


def targets() -> tuple[list[list[str]], list[str], set[str]]:
    """Volume and host of each target of LIO; what is half there; and the devices that are exported."""
    found, left, used = [], [], set()
    for path in glob.glob(f"{_LIO}/iscsi/iqn*"):
        iqn = os.path.basename(path)
        name = re.fullmatch(r"iqn\.2026-11\.io\.onelun\.\w+:\w+\.([\w-]+)\.e[0-9]+", iqn)
        hosts = [os.path.basename(acl).rpartition(":")[2] for acl in glob.glob(f"{path}/tpgt_1/acls/*")]
        found += [[name[1] if name else iqn, host] for host in hosts or ["nobody"]]
        used |= {os.path.realpath(link) for link in glob.glob(f"{path}/tpgt_1/lun/lun_*/*") if os.path.islink(link)}
    devices = set()
    for path in glob.glob(f"{_LIO}/core/*_[0-9]*/*/udev_path"):
        with open(path) as file:
            devices.add(os.path.basename(file.read().strip()))
        if os.path.dirname(path) not in used:
            left.append(f"backstore {os.path.basename(os.path.dirname(path))} of no target")
    return found, left, devices


def nas(group: str) -> dict[str, object]:
    """What a NAS has."""
    exports, left, exported = targets()
    listed = rows(group)
    volumes = shown(listed)
    of = {row["onelun.uuid"]: name for name, row in volumes.items()}
    snapshots = [row for row in listed if row.get("onelun.of") in of]
    trash = {row["onelun.uuid"] for row in listed if "onelun.uuid" in row} - set(of)
    for row in listed:
        if row.get("onelun.state") == "building" or row["lv_name"].endswith((".new", ".was")):
            left.append(f"{row['lv_name']} of {row.get('onelun.name')} is {row.get('onelun.state')}")
        elif not any(key in row for key in ("onelun.uuid", "onelun.of")) or row.get(
            "onelun.of", row.get("onelun.uuid")
        ) not in {*of, *trash}:
            left.append(f"LV {row['lv_name']} of nothing")
        elif row["lv_active"] and row["lv_name"] not in exported:
            left.append(f"{row['lv_name']} of {row.get('onelun.name')} is active and not exported")
    seen: dict[str, dict[str, object]] = {}
    if not left:
        with active(group, [*volumes.values(), *snapshots]):
            for name, row in volumes.items():
                size, total = content(f"/dev/{group}/{row['lv_name']}")
                seen[name] = {"size_bytes": size, "content": total, "snapshots": {}}
            for row in snapshots:
                kept = seen[of[row["onelun.of"]]]["snapshots"]
                kept[row["onelun.snapshot"]] = content(f"/dev/{group}/{row['lv_name']}")[1]
    return {"volumes": seen, "exports": exports, "left": left}


def host(datastores: str) -> dict[str, object]:
    """What a host has."""
    disks, left, named = {}, [], set()
    for path in glob.glob(f"{_LINKS}/**", recursive=True):
        if os.path.islink(path):
            device = os.path.basename(os.path.realpath(path))
            named.add(device)
            disks[os.path.basename(path)] = content(path)
    sessions = [os.path.realpath(path) for path in glob.glob("/sys/class/iscsi_session/session*/device")]
    there = map(os.path.basename, glob.glob("/sys/class/scsi_disk/*/device/block/*"))
    left += [f"{name} has no name" for name in there if name not in named]
    with_disk = {
        path
        for path in sessions
        if any(f"{path}/" in os.path.realpath(f"/sys/class/block/{name}/device") + "/" for name in named)
    }
    left += [f"{os.path.basename(path)} has no disk" for path in sessions if path not in with_disk]
    records = {os.path.realpath(path) for of in ("/etc", "/var/lib") for path in glob.glob(f"{of}/iscsi/nodes/iqn*")}
    if len(records) != len(disks):
        left.append(f"{len(records)} records of targets for {len(disks)} disks")
    entries = []
    for path in sorted(glob.glob(f"{datastores}/*/*/**", recursive=True)):
        kind = f"-> {os.readlink(path)}" if os.path.islink(path) else "directory" if os.path.isdir(path) else "file"
        entries.append([os.path.relpath(path, datastores), kind, os.lstat(path).st_uid])
    return {"disks": disks, "entries": entries, "left": left}


def write(group: str, volume: str, offset: str) -> None:
    """Write stdin there."""
    row = shown(rows(group))[volume]
    with active(group, [row]):
        put(f"/dev/{group}/{row['lv_name']}", offset)


def put(path: str, offset: str) -> None:
    """Write stdin there, durably."""
    with open(path, "r+b") as device:
        device.seek(int(offset))
        device.write(sys.stdin.buffer.read())
        device.flush()
        os.fsync(device.fileno())


if __name__ == "__main__":
    verb, *words = sys.argv[1:]
    if verb == "write":
        write(*words)
    elif verb == "put":
        put(*words)
    else:
        print(json.dumps({"nas": nas, "host": host}[verb](*words)))
