"""`scripts/demo`: the whole of onelun on a sandbox of its own, from nothing to nothing."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console
from rich.markup import escape
from scripts.lib.ledger import Ledger, StepFailed
from scripts.lib.life import Life
from scripts.lib.oned import Oned
from tests.support.sandbox.place import Place, SandboxError
from tests.support.sandbox.processes import run
from tests.support.sandbox.startup import up
from tests.support.sandbox.teardown import down, left_of

BOOTABLE = "/usr/lib/ipxe/ipxe.iso"


class Stopped(BaseException):
    """SIGTERM, SIGHUP or Ctrl-C."""


def main() -> int:
    """The exit status."""
    console = Console(stderr=False)
    ledger = Ledger(console)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    verdict = "interrupted"
    try:
        with _sandbox(ledger) as place:
            _live(place, ledger)
        verdict = ""
    except (StepFailed, SandboxError) as error:
        verdict = str(error)
    except Stopped:
        verdict = "interrupted"
    ledger.show()
    if verdict == "interrupted":
        console.print(
            f"[bold yellow]Interrupted[/] after {ledger.seconds():.0f} s; the sandbox is gone.", highlight=False
        )
        return 130
    if verdict:
        console.print(f"[bold red]FAILED[/] after {ledger.seconds():.0f} s: {escape(verdict)}", highlight=False)
        return 1
    console.print(
        f"[bold green]It works[/]: {sum(len(row.seconds) for row in ledger.rows)} steps in {ledger.seconds():.0f} s;"
        " data written on node1 was read on node2, images kept every bit, nothing was left behind.",
        highlight=False,
    )
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    # The end of the sandbox must not be interrupted: it is short, and what it leaves nobody else knows of.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise Stopped


@contextmanager
def _sandbox(ledger: Ledger) -> Iterator[Place]:
    """A sandbox that is gone afterwards, however it ends."""
    ledger.begin("Sandbox")
    place: Place | None = None
    try:
        with ledger.step("up", "sandbox up: broker, nas1, node1, node2, frontend"):
            place = up(None, None, os.getpid(), lambda text: None)
        yield place
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        if place is not None:
            ledger.begin("Sandbox ends")
            with ledger.step("down", f"sandbox {place.number} down"):
                down(place)
            with ledger.step("leak check", "no process, loop device, mount, namespace, network device or file is left"):
                if left := left_of(place):
                    raise SandboxError("; ".join(left))


def _live(place: Place, ledger: Ledger) -> None:
    images = place.path("images")
    os.mkdir(images, 0o755)
    bootable = f"{images}/bootable.qcow2"
    ledger.begin("Image")
    with ledger.step("qcow2", f"a bootable image as qcow2, made of {BOOTABLE}"):
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", BOOTABLE, bootable)
        os.chmod(bootable, 0o644)
    environment = {"ONELUN_SOCKET": place.frontend_socket, "ONELUN_CONFIG": place.config("frontend")}
    for number, release in enumerate(("3.4", "7.5")):
        oned = Oned(release, place.datastores, environment, safe_dirs=images)
        Life(place, oned, ledger, vm=42 + number, first_image=10 * (number + 1), bootable=bootable).live()


if __name__ == "__main__":
    sys.exit(main())
