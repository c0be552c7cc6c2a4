"""Guests with Debian's own cloud kernel, which has ZFS besides LVM-thin, LIO and open-iscsi: QEMU, with KVM where it is real."""

from __future__ import annotations

import os

from tests.support.lab.machine import Guest, Say
from tests.support.lab.place import CHECKOUT
from tests.support.lab.qemu_accel import acceleration
from tests.support.lab.qemu_parts import build_parts, part

_START = os.path.join(os.path.dirname(os.path.abspath(__file__)), "qemu_start.py")


class Qemu:
    """Debian's QEMU."""

    def build(self, root: str, say: Say) -> None:
        """See Machine. The first time it compiles ZFS, which takes about three minutes on two cores."""
        build_parts(root, say)

    def argv(self, guest: Guest, root: str) -> list[str]:
        """See Machine. Images of the root and of the modules are shared by all guests, read-only."""
        memory = f"{guest.memory_mib}M"
        shown = [
            *_disk("root", part(root, "root.img"), shared=True),
            *_disk("modules", part(root, "modules.img"), shared=True),
        ]
        parameters = [*guest.parameters(), "lab.checkout=virtiofs:checkout"]
        count = 2
        if guest.upper:
            shown += _disk("upper", guest.upper)
            parameters.append(f"lab.upper={_node(count)}")
            count += 1
        for number, path in enumerate(guest.disks, start=1):
            shown += _disk(f"disk{number}", path)
        nodes = [_node(count + number) for number in range(len(guest.disks))]
        parameters.append(f"lab.disks={','.join(nodes)}")
        return [
            *("/usr/bin/python3", "-I", "-S", _START, guest.directory, CHECKOUT),
            "qemu-system-x86_64",
            *("-nodefaults", "-no-user-config", "-display", "none"),
            # A guest that restarts itself, or panics, is over: who reboots it starts it again.
            "-no-reboot",
            *("-machine", "q35,memory-backend=memory", *acceleration()),
            *("-m", memory),
            # virtiofsd reads and writes the guest's memory.
            *("-object", f"memory-backend-memfd,id=memory,size={memory},share=on"),
            *(
                "-chardev",
                "socket,id=checkout,path=checkout",
                "-device",
                "vhost-user-fs-pci,chardev=checkout,tag=checkout",
            ),
            *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
            *("-kernel", part(root, "vmlinuz"), "-initrd", part(root, "initramfs")),
            *("-append", " ".join(["console=ttyS0", "quiet", "panic=-1", "mitigations=off", *parameters])),
            *_cable("own", guest.agent_tap, guest.agent_mac),
            *_cable("hosts", guest.tap, guest.mac),
            *shown,
        ]


def _node(number: int) -> str:
    """The kernel's name of a virtio disk; it finds them in the order of the command line."""
    return f"/dev/vd{chr(ord('a') + number)}"


def _disk(name: str, path: str, *, shared: bool = False) -> list[str]:
    # What the guest flushes is flushed to the file; what it only wrote outlives the end of QEMU all the same.
    access = "readonly=on,file.locking=off" if shared else "cache=writeback,discard=unmap"
    drive = f"if=none,id={name},file={path},format=raw,{access}"
    return ["-drive", drive, "-device", f"virtio-blk-pci,drive={name},serial={name}"]


def _cable(name: str, tap: str, mac: str) -> list[str]:
    netdev = f"tap,id={name},ifname={tap},script=no,downscript=no"
    return ["-netdev", netdev, "-device", f"virtio-net-pci,netdev={name},mac={mac}"]


MACHINE = Qemu()
