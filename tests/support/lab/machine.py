"""A guest, and what a kind of machine must offer to run it: the seam between the lab and user-mode-linux, QEMU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Protocol, cast

from tests.support.lab.place import CHECKOUT, MACHINES, Lab, LabError, mac

Say = Callable[[str], None]
KINDS = ("uml", "qemu")


@dataclass(frozen=True)
class Guest:
    """One guest: `disks` are the files of its data disks in order, `upper` that of the disk which keeps what changes.

    Its taps are made before it starts, and are called as `tap` and `agent_tap` say.
    """

    lab: Lab
    name: str
    kind: str = "uml"
    memory_mib: int = 512
    disks: tuple[str, ...] = ()
    upper: str | None = None
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def directory(self) -> str:
        """Where its machine keeps its own files (sockets, firmware …); it is there."""
        return self.lab.path("guests", self.name)

    @property
    def tap(self) -> str:
        """The cable among the hosts; its bridge lets go of it when it is cut."""
        return f"tap{MACHINES.index(self.name)}"

    @property
    def agent_tap(self) -> str:
        """The lab's own cable, which is never cut."""
        return f"own{MACHINES.index(self.name)}"

    @property
    def mac(self) -> str:
        """Of its end of `tap`."""
        return mac(self.name)

    @property
    def agent_mac(self) -> str:
        """Of its end of `agent_tap`."""
        return mac(self.name, agent=True)

    def parameters(self) -> list[str]:
        """What tests/support/lab/guest/ reads on the kernel's command line; the machine adds some."""
        found = {
            "name": self.name,
            "mac": self.mac,
            "address": self.lab.address(self.name),
            "lab_mac": self.agent_mac,
            "lab_address": self.lab.agent_address(self.name),
            **self.settings,
        }
        return [f"lab.{key}={value}" for key, value in found.items()]


class Machine(Protocol):
    """A kind of machine. `root` is the directory that `lab build` made; the guest must not write to it."""

    def build(self, root: str, say: Say) -> None:
        """Make in the cache what this kind needs besides the root. Repeating it costs nothing."""

    def argv(self, guest: Guest, root: str) -> list[str]:
        """The one process that is the guest, in the foreground, console on stdout; killing it is a power cut.

        It is started in the lab's namespaces, after its taps, and boots to tests/support/lab/guest/init, or does what that
        does in its own way and then runs guest/start. On the kernel's command line are `guest.parameters()`, `lab.upper`,
        `lab.checkout` (for guest/init) and `lab.disks`, the data disks as the guest sees them, joined by commas.
        """


def machine(kind: str) -> Machine:
    """The machine of that kind: the object MACHINE of tests/support/lab/KIND.py."""
    if kind not in KINDS:
        raise LabError(f"there are no guests of the kind {kind}: {', '.join(KINDS)}")
    return cast("Machine", import_module(f"tests.support.lab.{kind}").MACHINE)


__all__ = ["CHECKOUT", "KINDS", "Guest", "Machine", "Say", "machine"]
