"""Guests as plain processes: user-mode-linux has LVM-thin, LIO and open-iscsi, and needs neither KVM nor an image of a root."""

from __future__ import annotations

import os

from tests.support.lab import uml_xstate
from tests.support.lab.machine import Guest, Say
from tests.support.lab.place import CHECKOUT, MACHINES


class UserModeLinux:
    """Debian's user-mode-linux; `lab build` puts the kernel beside the root and its modules into it."""

    def build(self, root: str, say: Say) -> None:
        """The root has the kernel's modules; only a host with AMX needs more."""
        uml_xstate.build(root, say)

    def argv(self, guest: Guest, root: str) -> list[str]:
        """See Machine. The root and the checkout are the machine's own directories, through hostfs."""
        disks = [f"ubd{number}={path}" for number, path in enumerate(guest.disks, start=1)]
        upper = []
        if guest.upper:
            disks.append(f"ubd0={guest.upper}")
            upper.append("lab.upper=/dev/ubda")
        return [
            *("taskset", "--cpu-list", str(_core(guest))),
            *preloaded(root),
            kernel(root),
            f"umid={guest.name}",
            f"uml_dir={guest.directory}/",
            f"mem={guest.memory_mib}M",
            "rootfstype=hostfs",
            f"rootflags={root}",
            "ro",
            "init=/lab/init",
            "panic=-1",
            *disks,
            # Without gro=1 bulk traffic stalls ("Incoming GSO frames and GRO disabled").
            f"vec0:transport=tap,ifname={guest.agent_tap},depth=64,gro=1,mac={guest.agent_mac}",
            f"vec1:transport=tap,ifname={guest.tap},depth=64,gro=1,mac={guest.mac}",
            "con0=null,fd:1",
            "con=null",
            # 512 terminals of the old kind, each of which every command of LVM's would look at.
            "pty.legacy_count=0",
            *guest.parameters(),
            *upper,
            f"lab.checkout=hostfs:{CHECKOUT}",
            f"lab.disks={','.join(f'/dev/ubd{letter}' for letter in 'bcdefgh'[: len(guest.disks)])}",
        ]


def _core(guest: Guest) -> int:
    """The one core for a guest: its kernel and its processes take turns, and over two, each turn waits for a core to wake."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[MACHINES.index(guest.name) % len(cores)]


def kernel(root: str) -> str:
    """The user-mode-linux kernel that belongs to `root`."""
    return os.path.join(os.path.dirname(root), "uml", "usr", "bin", "linux.uml")


def preloaded(root: str) -> tuple[str, ...]:
    """How the kernel is started on a host with AMX."""
    library = uml_xstate.library(root)
    return ("env", f"LD_PRELOAD={library}") if os.path.exists(library) else ()


MACHINE = UserModeLinux()
