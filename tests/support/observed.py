"""What is really there in a sandbox: volumes with their contents, targets, devices and links; and what it should become.

A State is what an action is judged by: it says everything, so that what an action must not touch is compared as well. Names
of volumes are as in their pool (`one-3-0-0`), hosts as in the sandbox (`node1`, and `frontend`), and paths of a VM's
directory relative to the datastores (`103/0/disk.1`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.support.sandbox.place import NAS, NODES, Place
from tests.support.sandbox.processes import recorded, run
from tests.support.sandbox.teardown import loops

MIB = 1 << 20
SWAP = "swap"
_PAGE = 4096
_READ_S = 60
_BACKUP = re.compile(r"disk\.\d+\.\d+")
_TARGET = re.compile(r"iqn\.2026-11\.io\.onelun\.\w+:\w+\.([\w-]+)\.e[0-9]+")
_INITIATOR = re.compile(r"^        iqn\.2026-11\.io\.onelun\.host:(\w+)$", re.MULTILINE)


class Unreadable(Exception):
    """A device that a host has cannot be read."""


@dataclass(frozen=True)
class Volume:
    """A volume of that size; `content` and those of its snapshots are told by their sums."""

    size_bytes: int
    content: str
    snapshots: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """All that can be seen. `with_…` and the others below give the state with one thing changed."""

    volumes: dict[str, Volume] = field(default_factory=dict)
    exports: frozenset[tuple[str, str]] = frozenset()
    devices: frozenset[tuple[str, str]] = frozenset()
    entries: dict[tuple[str, str], str] = field(default_factory=dict)
    leftovers: tuple[str, ...] = ()

    def volume(self, name: str, size_mb: int, *, like: str | None = None, holds: str | None = None) -> State:
        """With a volume that has the content of volume `like`, or that sum, or nothing."""
        content = self.volumes[like].content if like else holds or EMPTY
        old = self.volumes.get(name)
        new = Volume(size_mb * MIB, content, old.snapshots if old else {})
        return replace(self, volumes=self.volumes | {name: new})

    def grown(self, name: str, size_mb: int) -> State:
        """With that volume larger, and its content as it was."""
        new = replace(self.volumes[name], size_bytes=size_mb * MIB)
        return replace(self, volumes=self.volumes | {name: new})

    def without(self, name: str) -> State:
        """Without that volume."""
        return replace(self, volumes={key: value for key, value in self.volumes.items() if key != name})

    def snapshot(self, name: str, number: int) -> State:
        """With a snapshot of what the volume has now."""
        volume = self.volumes[name]
        taken = volume.snapshots | {f"snap-{number}": volume.content}
        return replace(self, volumes=self.volumes | {name: replace(volume, snapshots=taken)})

    def without_snapshots(self, name: str, *numbers: int) -> State:
        """Without those snapshots of the volume."""
        volume, gone = self.volumes[name], {f"snap-{number}" for number in numbers}
        kept = {key: value for key, value in volume.snapshots.items() if key not in gone}
        return replace(self, volumes=self.volumes | {name: replace(volume, snapshots=kept)})

    def reverted(self, name: str, number: int) -> State:
        """With the content that the volume had at that snapshot."""
        volume = self.volumes[name]
        old = replace(volume, content=volume.snapshots[f"snap-{number}"])
        return replace(self, volumes=self.volumes | {name: old})

    def holding(self, name: str, content: str) -> State:
        """With that content in the volume."""
        return replace(self, volumes=self.volumes | {name: replace(self.volumes[name], content=content)})

    def attached(self, host: str, name: str) -> State:
        """With a target for that host, and its device there."""
        return replace(self, exports=self.exports | {(name, host)}, devices=self.devices | {(name, host)})

    def detached(self, host: str, name: str) -> State:
        """Without them."""
        return replace(self, exports=self.exports - {(name, host)}, devices=self.devices - {(name, host)})

    def entry(self, host: str, path: str, value: str) -> State:
        """With an entry in a VM's directory, which is there then."""
        directory = {(host, os.path.dirname(path)): "directory"}
        return replace(self, entries=self.entries | directory | {(host, path): value})

    def without_entry(self, host: str, path: str) -> State:
        """Without that entry, and what is below it."""
        kept = {
            key: value
            for key, value in self.entries.items()
            if key[0] != host or not f"{key[1]}/".startswith(f"{path}/")
        }
        return replace(self, entries=kept)

    def disk(self, host: str, path: str, name: str) -> State:
        """With the volume as a VM's disk: attached, and linked."""
        return self.attached(host, name).entry(host, path, link_to(name))


def backup_of(content: str) -> str:
    """What a file of a backup is that holds that content, all of it."""
    return f"qcow2 of {content}"


def link_to(name: str) -> str:
    """What disk.N of that volume is."""
    return f"-> /dev/onelun/{NAS}/tank/{name}"


def observe(place: Place) -> State:
    """Look at a sandbox that is at rest. Unreadable or OSError when it is not, or when a device is dead."""
    pool = Path(place.pool)
    # First: what goes takes its target along before, and nothing is told of that which has just gone.
    leftovers = [
        path.name for path in pool.iterdir() if path.name.startswith((".new-", ".clone-")) and not _in_trash(path)
    ]
    volumes = {path.name: _volume(path) for path in pool.iterdir() if not path.name.startswith(".")}
    exports = _exports(place)
    devices, entries = set(), {}
    for host in (*NODES, "frontend"):
        root = Path(place.datastores if host == "frontend" else place.host_datastores(host))
        entries |= {(host, name): value for name, value in entries_of(root, place.frontend_uid)}
    for host in NODES:
        devices |= {(name, host) for name in _devices(place, host)}
    inside = [path for name in volumes for path in Path(pool, name).iterdir()]
    leftovers += [str(path) for path in inside if re.match(r"revert-|snapshot-copying", path.name)]
    leftovers += os.listdir(place.path("frontend", "staging"))
    if len(loops(place)) != len(devices):
        leftovers.append(f"{len(loops(place))} loop devices for {len(devices)} disks")
    return State(volumes, exports, frozenset(devices), entries, tuple(sorted(leftovers)))


def _in_trash(directory: Path) -> bool:
    """Whether it holds what another volume took the place of: it goes with the trash, wherever it lies."""
    facts = directory / "volume.json"
    return facts.exists() and json.loads(facts.read_text())["trashed_at"] is not None


def _volume(directory: Path) -> Volume:
    data = directory / "data"
    snapshots = {
        path.name.removeprefix("snapshot-").removesuffix(".json"): content(path.with_suffix(".data"))
        for path in directory.glob("snapshot-*.json")
    }
    return Volume(data.stat().st_size, content(data), snapshots)


def content(path: Path) -> str:
    """A sum of what is not zero in a file, and where; the size is not part of it. Swap space is SWAP: it has a random name."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        if file.read(_PAGE).endswith(b"SWAPSPACE2"):
            return SWAP
        end, offset = os.fstat(file.fileno()).st_size, 0
        while offset < end:
            try:
                offset = os.lseek(file.fileno(), offset, os.SEEK_DATA) // MIB * MIB
            except OSError:
                break
            file.seek(offset)
            if (block := file.read(MIB)).strip(b"\0"):
                total.update(b"%d:" % offset + block)
            offset += MIB
    return total.hexdigest()


def content_of(data: bytes) -> str:
    """The same sum of a file that begins with `data`, whole MiB."""
    blocks = ((offset, data[offset : offset + MIB]) for offset in range(0, len(data), MIB))
    return hashlib.sha256(
        b"".join(b"%d:" % offset + block for offset, block in blocks if block.strip(b"\0"))
    ).hexdigest()


EMPTY = content_of(b"")


def _exports(place: Place) -> frozenset[tuple[str, str]]:
    socket = place.path("hosts", NAS, "tgt", "tgtd.sock")
    shown = run("env", f"TGT_IPC_SOCKET={socket}", "tgtadm", "--lld", "iscsi", "--mode", "target", "--op", "show")
    found = set()
    for target in re.split(r"^Target ", shown, flags=re.MULTILINE)[1:]:
        match = _TARGET.search(target)
        allowed = _INITIATOR.findall(target.partition("ACL information:")[2])
        found |= {(match[1] if match else target.splitlines()[0], host) for host in allowed or ["nobody"]}
    return frozenset(found)


def _devices(place: Place, host: str) -> list[str]:
    """The volumes whose device is there on the host and can be read."""
    holder = recorded(place, f"{host}.holder")
    assert holder is not None, f"{host} is gone"
    found = []
    for link in Path(f"/proc/{holder.pid}/root/dev/onelun").glob("*/*/*"):
        # The number in the name is the machine's; the host's own /dev is the same one.
        # By another process: one whose agent died in the middle of it may never answer.
        argv = ("dd", f"if={os.readlink(link)}", "of=/dev/null", "bs=512", "count=1", "status=none")
        try:
            subprocess.run(argv, timeout=_READ_S, check=True, capture_output=True)
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
            raise Unreadable(f"{link.name} on {host} cannot be read: {error}") from error
        found.append(link.name)
    return found


def entries_of(root: Path, owner: int) -> list[tuple[str, str]]:
    """What is in the directories of VMs, and what it is."""
    found = []
    for path in sorted(root.glob("*/*/**/*")) + sorted(root.glob("*/*")):
        value = f"-> {os.readlink(path)}" if path.is_symlink() else "directory" if path.is_dir() else _file(path)
        uid = path.lstat().st_uid
        found.append((str(path.relative_to(root)), value if uid == owner else f"{value} of user {uid}"))
    return found


def _file(path: Path) -> str:
    """What a file in a VM's directory is; of a backup's, what is in it."""
    if path.parent.name != "backup" or not _BACKUP.fullmatch(path.name):
        return "file"
    with tempfile.TemporaryDirectory() as directory:
        raw = Path(directory, "raw")
        run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(path), str(raw), check=False)
        return backup_of(content(raw)) if raw.exists() else "no whole qcow2"
