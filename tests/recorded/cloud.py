"""A sandbox whose oned is a small one, and the recorded calls as that cloud would get them."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import subprocess
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.recorded.backupstore import Backupstore
from tests.recorded.faulted import Faulted
from tests.support import recorded
from tests.support.observed import MIB, State, Unreadable, content_of, observe
from tests.support.oned import Oned
from tests.support.recorded import RECORDINGS, Recorded
from tests.support.sandbox.place import CHECKOUT, Place

LIMIT_S = 300
# Whoever was killed is missed after three times progress_s; what nobody renews goes with its lease, at a look every probe_s.
LIMITS = {"progress_s": 1.0, "lease_s": 9.0, "probe_s": 2.0}
SETTLE_S = 120.0
# What is in the file that the recorded image is registered from.
_BASE = bytes(range(256)) * (2 * MIB // 256)
BASE = content_of(_BASE)


class Image(NamedTuple):
    """An image that oned has: made by mkfs, and written to unless it is `empty`."""

    id: int
    size_mb: int
    empty: bool = False


class Scribble(NamedTuple):
    """Something is written into the volume; another `draft` is something else, at the same place."""

    volume: str
    draft: int = 1


class Kept(NamedTuple):
    """The backup datastore takes the files of a backup from the VM's directory."""

    directory: str


class Ran(NamedTuple):
    """Another recorded call came before; `argv`, where it was called otherwise than recorded."""

    recording: str
    argv: tuple[str, ...] | None = None


class OnedVm(NamedTuple):
    """What oned's API says of the VM: a recorded document, in another state of its life or on another host."""

    document: str
    id: int
    lcm: int | None = None
    host: str | None = None
    state: int = 3


# What must be there before an action: images, what a VM wrote, and lines of oned's transfer scripts.
Step = Image | Scribble | Kept | Ran | str


def written(image: int) -> str:
    """The sum of what is in an image that is not empty."""
    return content_of(bytes(MIB) + drawn(Scribble(f"one-{image}", draft=0)))


@cache
def drawn(scribble: Scribble) -> bytes:
    """What it writes, at 1 MiB."""
    return random.Random(f"{scribble.volume} {scribble.draft}").randbytes(2 * MIB)


def names(place: Place) -> dict[str, str]:
    """What the recordings say → what the sandbox has: the one table, for arguments and documents alike."""
    return {
        **recorded.NAMES,
        "nas1/tank nas2/tank": "nas1/tank",
        "/var/lib/one//datastores": f"{place.dir}//datastores",
        "/var/lib/one/vms/": f"{place.dir}/vms/",
        "/var/tmp/images/": f"{place.dir}/images/",
    }


class Cloud:
    """One sandbox, and its oned."""

    def __init__(self, place: Place, oned: Oned, backups: Backupstore) -> None:
        self.place = place
        self.oned = oned
        self.faulted = Faulted(place)
        self._backups = backups
        self._regtimes = dict(_regtimes())
        for name in ("images", "vms/0"):
            os.makedirs(place.path(name), mode=0o755, exist_ok=True)
        self._write("images/base.raw", _BASE, size=64 * MIB)
        self._write("vms/0/context.sh", b"TESTVAR='a b'\n")

    def _write(self, name: str, data: bytes, size: int | None = None) -> None:
        with open(self.place.path(name), "wb") as file:
            file.write(data)
            if size:
                file.truncate(size)

    def recording(self, name: str) -> Recorded:
        """The recorded call of that name (`tm.clone`, `tm.clone.ssh`, `datastore.cp`), for this cloud."""
        found = json.loads((RECORDINGS / f"{name}.json").read_text())
        document = RECORDINGS / f"{name}.stdin.xml"
        argv = tuple(self._mapped(word) for word in found["argv"])
        stdin = self._mapped(document.read_text()).encode() if document.exists() else b""
        if found["stdin"] == "base64":
            stdin = base64.b64encode(stdin)
        return Recorded("/".join(name.split(".")[:2]), argv, stdin)

    def line(self, text: str) -> Recorded:
        """A line of a transfer script (`LN onelun vm:onelun/one-4 host01:… 0 102`), for this cloud."""
        action, driver, *argv = self._mapped(text).split()
        assert driver == "onelun", text
        return Recorded(f"tm/{action.lower().partition('.')[0]}", tuple(argv), b"")

    def _mapped(self, text: str) -> str:
        for theirs, ours in names(self.place).items():
            text = text.replace(theirs, ours)
        return text

    def begin(self, call: Recorded, **env: str) -> subprocess.Popen[bytes]:
        """Start the script, with that in its environment; whoever asked waits for it."""
        process = subprocess.Popen(
            [f"{CHECKOUT}/{call.name.replace('/', '/onelun/')}", *call.argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "ONELUN_SOCKET": self.place.frontend_socket, **env},
        )
        assert process.stdin is not None
        process.stdin.write(call.stdin)
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, call: Recorded) -> str:
        """Run the script to its end, which must be a good one; what it printed."""
        with self.begin(call) as process:
            try:
                stdout, stderr = process.communicate(timeout=LIMIT_S)
            finally:
                process.kill()
        assert process.returncode == 0, f"{call.name} {' '.join(call.argv)}: {stderr.decode()}"
        return stdout.decode()

    def serve(self, vms: Iterable[OnedVm]) -> None:
        """Have oned know these VMs and no others, and the image that a backup is, with its datastore."""
        self.oned.documents.clear()
        self.oned.documents["image", 27] = recorded.show("oneimage-show-t-os", ID="27", DATASTORE_ID="108")
        self.oned.documents["datastore", 108] = recorded.show(
            "onedatastore-show-bk_onelun", DS_MAD=self._backups.driver
        )
        for vm in vms:
            self.oned.vm(vm.document, vm.id, lcm=vm.lcm, state=vm.state, host=vm.host)

    def prepare(self, steps: Iterable[Step]) -> None:
        """Do the steps, one after the other."""
        for step in steps:
            if isinstance(step, Image):
                self._register(step)
            elif isinstance(step, Scribble):
                self._scribble(step)
            elif isinstance(step, Kept):
                host, _, path = step.directory.partition(":")
                self._backups.keep(Path(self.place.host_datastores(recorded.HOSTS[host]), path, "backup"))
            elif isinstance(step, Ran):
                call = self.recording(step.recording)
                self.run(call._replace(argv=tuple(map(self._mapped, step.argv))) if step.argv else call)
            else:
                self.run(self.line(step))

    def _register(self, image: Image) -> None:
        self.run(self.datastore("mkfs", image.id, SIZE=str(image.size_mb)))
        if not image.empty:
            self._scribble(Scribble(f"one-{image.id}", draft=0))

    def datastore(self, action: str, image_id: int, **elements: str) -> Recorded:
        text = recorded.document(action, ID=str(image_id), REGTIME=self._regtimes.get(str(image_id), "5"), **elements)
        encoded = base64.b64encode(self._mapped(text).encode())
        return Recorded(f"datastore/{action}", (str(image_id),), encoded)

    def _scribble(self, scribble: Scribble) -> None:
        with open(Path(self.place.pool, scribble.volume, "data"), "r+b") as data:
            data.seek(MIB)
            data.write(drawn(scribble))

    def state(self) -> State:
        """What is there now."""
        return observe(self.place)

    def settled(self, expected: State | None = None) -> State:
        """What is there when all that was interrupted is tidied up, and as expected; or when that takes too long."""
        end = time.monotonic() + SETTLE_S
        while True:
            late = time.monotonic() > end
            try:
                found = self.state()
            except (OSError, Unreadable):
                # Something went while it was looked at.
                if late:
                    raise
            else:
                if late or (not found.leftovers and expected in (None, found)):
                    return found
            time.sleep(0.1)

    def reset(self) -> None:
        """Give everything back by oned's own actions; nothing may be left."""
        self.serve(())
        left = self.state()
        disks = {path for _, path in left.entries if _DISK.fullmatch(path)}
        linked = {path.partition("/")[2] for path in disks}
        own = {f"{found[1]}/disk.{found[2]}" for name in left.volumes if (found := _OWN.fullmatch(name))}
        disks |= {f"103/{rest}" for rest in own - linked}
        there = {host for _, host in (*left.exports, *left.devices)} | {host for host, _ in left.entries}
        hosts = [oneds for oneds, ours in recorded.HOSTS.items() if ours in there] or list(recorded.HOSTS)
        with ThreadPoolExecutor(6) as pool:
            for calls in (
                [self._delete(host, path) for path in sorted(disks) for host in hosts],
                [self._delete(_ONEDS[host], path) for host, path in left.entries if _DIRECTORY.fullmatch(path)],
                [self._remove(name) for name in left.volumes if _IMAGE.fullmatch(name)],
            ):
                list(pool.map(self.run, calls))
        left = self.settled(State())
        assert left == State(), f"left when all was given back: {left}"

    def _delete(self, host: str, path: str) -> Recorded:
        return Recorded("tm/delete", (f"{host}:{self.place.datastores}/{path}", path.split("/")[1], "102"), b"")

    def _remove(self, name: str) -> Recorded:
        return self.datastore("rm", int(name.partition("-")[2]), SOURCE=f"nas1/tank/{name}")


_ONEDS = {"node1": "host01", "node2": "host02", "frontend": "vm"}
_DISK = re.compile(r"\d+/\d+/disk\.\d+")
_DIRECTORY = re.compile(r"\d+/\d+")
_IMAGE = re.compile(r"one-\d+")
_OWN = re.compile(r"one-(?:\d+|vm)-(\d+)-(\d+)")


def _regtimes() -> Iterable[tuple[str, str]]:
    """When oned registered the recorded images, by id: a volume's owner is the image of that moment."""
    for path in RECORDINGS.glob("datastore.*.stdin.xml"):
        if found := re.search(r"<IMAGE><ID>(\d+)</ID>.*?<REGTIME>(\d+)</REGTIME>", path.read_text()):
            yield found[1], found[2]
