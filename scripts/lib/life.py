"""The life of the seed's example VM, called as one release of OpenNebula calls it, with the proofs that its data lives too."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import replace

from scripts.lib.guest import BLOCK, Guest, block_of
from scripts.lib.ledger import Ledger
from scripts.lib.oned import Image, Oned, Outcome
from tests.support.sandbox.place import Place
from tests.support.sandbox.processes import run

FRONTEND, HOST01, HOST02 = "frontend", "host01", "host02"
CLONE, PERSISTENT, SAVED = 0, 1, 2


class Life:
    """One VM: disk 0 a clone, 1 persistent, and in 3.4 alone disk 2, a clone that is saved as an image of its own."""

    def __init__(self, place: Place, oned: Oned, ledger: Ledger, *, vm: int, first_image: int, bootable: str) -> None:
        self.place = place
        self.oned = oned
        self.ledger = ledger
        self.vm = vm
        size_mb = max(4, -(-os.path.getsize(bootable) // (1 << 20)))
        images = [
            Image(first_image, "bootable image", size_mb, path=bootable),
            Image(first_image + 1, "persistent datablock", 64, persistent=True),
        ]
        if oned.old:
            images.append(Image(first_image + 2, "image to save as", size_mb, persistent=True))
        self.images = images
        self.written = secrets.token_bytes(BLOCK)

    def live(self) -> None:
        """From registering the images to removing them. Raises StepFailed."""
        self.ledger.begin(f"OpenNebula {self.oned.release}")
        self.register()
        self.create()
        self.write()
        self.move(HOST01, FRONTEND, "STOP")
        self.move(FRONTEND, HOST01, "RESUME")
        self.move(HOST01, HOST02, "MIGRATE")
        self.prove_moved()
        self.shut_down()
        self.prove_kept()
        self.remove()

    def register(self) -> None:
        """The images: a bootable one that is cloned, empty ones for data."""
        if not self.oned.old:
            self._act("stat", "stat the bootable image", lambda: self.oned.datastore("stat", self.images[CLONE]))
            self._act("monitor", "monitor the datastore", lambda: self.oned.datastore("monitor", None))
        self.images = [self._registered(image) for image in self.images]
        self.image_sha256 = self._sha256(CLONE)
        with self.ledger.step("proof", "the image in the pool is the one that was registered"):
            run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", self.images[CLONE].path, self._pool_file(CLONE))

    def create(self) -> None:
        """CREATE: every disk on host01."""
        for disk in self._disks():
            action = "ln" if disk == PERSISTENT else "clone"
            image = self.images[PERSISTENT if disk == PERSISTENT else CLONE]
            self._transfer(action, f"{FRONTEND}:{image.source}", self._at(HOST01, disk), event="CREATE")

    def write(self) -> None:
        """What the VM does on host01."""
        with self.ledger.step(
            "VM writes", "the VM makes a filesystem on disk.1 with a file of 8 MiB, and writes its clones"
        ):
            guest = Guest(self.place, HOST01)
            guest.make_filesystem(self._path(PERSISTENT))
            self.file_sha256 = guest.write_file(self._path(PERSISTENT), 8 << 20)
            for disk in self._disks(without=PERSISTENT):
                guest.write_block(self._path(disk), self.written)

    def move(self, source: str, target: str, event: str) -> None:
        """Every disk, then the directory."""
        for disk in self._disks():
            self._transfer("mv", self._at(source, disk), self._at(target, disk), event=event)
        self._transfer("mv", self._at(source), self._at(target), event=event, of_system=True)

    def prove_moved(self) -> None:
        """On host02 are the file and the blocks that were written on host01, and the image has none of them."""
        guest = Guest(self.place, HOST02)
        with self.ledger.step("proof", "the file written on node1 is read on node2, its checksum equal"):
            _must(guest.file_sha256(self._path(PERSISTENT)) == self.file_sha256, "the file on disk.1 is another one")
        with self.ledger.step("proof", "the clone has what was written on node1, and its image has not"):
            _must(guest.read_block(self._path(CLONE)) == self.written, "disk.0 lacks what was written on node1")
            _must(block_of(self._pool_file(CLONE)) != self.written, "the image changed with its clone")

    def shut_down(self) -> None:
        """SHUTDOWN: the clone goes, the persistent disk goes home; in 3.4 the other clone becomes an image."""
        self._transfer("delete", self._at(HOST02, CLONE), event="SHUTDOWN")
        self._transfer("mvds", self._at(HOST02, PERSISTENT), self.images[PERSISTENT].source, event="SHUTDOWN")
        if self.oned.old:
            self._transfer("mvds", self._at(HOST02, SAVED), self.images[SAVED].source, event="SAVE AS")
        self._transfer("delete", self._at(HOST02), event="SHUTDOWN", of_system=True)

    def prove_kept(self) -> None:
        """The image is what it was; a saved one is what the VM's disk was."""
        with self.ledger.step("proof", "the image is bit for bit what was registered"):
            _must(self._sha256(CLONE) == self.image_sha256, "the image changed")
        if self.oned.old:
            with self.ledger.step("proof", "the saved image has what the VM wrote"):
                _must(block_of(self._pool_file(SAVED)) == self.written, "the saved image lacks the VM's write")

    def remove(self) -> None:
        """Remove every image."""
        for number, image in enumerate(self.images):
            self._act("rm", f"rm {image.source}", lambda image=image: self.oned.datastore("rm", image))
            with self.ledger.step("proof", f"{image.source} is out of sight"):
                _must(not os.path.exists(self._pool_file(number)), "its volume is still there")

    def _disks(self, without: int | None = None) -> list[int]:
        return [disk for disk in range(len(self.images)) if disk != without]

    def _registered(self, image: Image) -> Image:
        """The image with the SOURCE that cp or mkfs gave it."""
        action = "cp" if image.path else "mkfs"
        shown = f"{action} {image.name}, {image.size_mb} MiB"
        outcome = self._act(action, shown, lambda: self.oned.datastore(action, image))
        return replace(image, source=self.oned.source_in(action, outcome.stdout, image))

    def _transfer(self, action: str, *locations: str, event: str, of_system: bool = False) -> None:
        directory = self.oned.directory(self.vm)
        shown = " ".join(location.replace(directory, f"…/{self.vm}") for location in locations)
        name = f"{event} {action}{' (dir)' if of_system else ''}"
        self._act(
            name,
            f"{event:8} {action} {shown}",
            lambda: self.oned.transfer(action, *locations, vm=self.vm, of_system=of_system),
        )

    def _act(self, name: str, shown: str, call: Callable[[], Outcome]) -> Outcome:
        with self.ledger.step(name, shown):
            outcome = call()
            _must(outcome.status == 0, f"status {outcome.status}: {outcome.stderr.strip() or 'no message'}")
        return outcome

    def _at(self, host: str, disk: int | None = None) -> str:
        return f"{host}:{self.oned.directory(self.vm)}" + ("" if disk is None else f"/disk.{disk}")

    def _path(self, disk: int) -> str:
        return f"{self.oned.directory(self.vm)}/disk.{disk}"

    def _pool_file(self, image: int) -> str:
        return os.path.join(self.place.pool, self.images[image].source.rpartition("/")[2], "data")

    def _sha256(self, image: int) -> str:
        return run("sha256sum", self._pool_file(image)).split()[0]


def _must(true: bool, otherwise: str) -> None:  # noqa: FBT001 - it reads like an assertion
    if not true:
        raise ValueError(otherwise)
