"""The initramfs of a QEMU guest: the modules of its disks, and its root put together from images."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence

from tests.support.sandbox.processes import run

# What it takes to see the disks, the network and the checkout; everything else is loaded from the guest's own root.
_MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "overlay", "virtiofs")
# The order of the disks on the command line, which is the order in which the kernel finds them.
ROOT, MODULES = "/dev/vda", "/dev/vdb"

_INIT = """#!/bin/busybox sh
# See tests/support/lab/guest/init: the same, for a root that is an image, with modules on another.
set -e
/bin/busybox --install -s /bin
PATH=/bin
mkdir -p /proc /sys /dev /lower /modules /upper /root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
{insmod}
for word in $(cat /proc/cmdline); do
	case $word in
	lab.upper=*) upper=${{word#*=}} ;;
	lab.checkout=*) checkout=${{word#*=}} ;;
	esac
done
mount -t ext4 -o ro {root} /lower
mount -t ext4 -o ro {modules} /modules
if [ "$upper" ]; then
	mount -t ext4 -o noatime "$upper" /upper
else
	mount -t tmpfs -o mode=755 tmpfs /upper
fi
mkdir -p /upper/files /upper/work
mount -t overlay -o lowerdir=/modules:/lower,upperdir=/upper/files,workdir=/upper/work overlay /root
mount -t virtiofs -o ro "${{checkout#*:}}" /root/checkout
for directory in proc sys dev; do mount --move "/$directory" "/root/$directory"; done
exec switch_root /root /checkout/tests/support/lab/guest/start
"""


def load_order(dependencies: Iterable[str], wanted: Sequence[str]) -> list[str]:
    """Paths of the modules `wanted` with what they need, in the order of loading.

    `dependencies` are the lines of depmod's modules.dep: `path: paths of what it needs`, the nearest first, all of them.
    Raises KeyError for a module that is not there.
    """
    needs = {}
    for line in dependencies:
        path, _, others = line.partition(":")
        needs[os.path.basename(path).removesuffix(".ko")] = [*reversed(others.split()), path]
    return list(dict.fromkeys(path for name in wanted for path in needs[name]))


def make_initramfs(path: str, work: str, modules: str, busybox: str) -> None:
    """Write the initramfs to `path`. `modules` is the kernel's directory of modules, after depmod; `work` a fresh name.

    It is not compressed: an emulated processor takes longer to unpack it than the disk to give it.
    """
    with open(f"{modules}/modules.dep") as file:
        order = load_order(file, _MODULES)
    for directory in ("bin", "load"):
        os.makedirs(f"{work}/{directory}")
    shutil.copy(busybox, f"{work}/bin/busybox")
    for module in order:
        shutil.copy(f"{modules}/{module}", f"{work}/load/")
    insmod = "\n".join(f"insmod /load/{os.path.basename(module)}" for module in order)
    with open(f"{work}/init", "w") as file:
        file.write(_INIT.format(insmod=insmod, root=ROOT, modules=MODULES))
    os.chmod(f"{work}/init", 0o755)
    pack = 'cd "$1" && "$0" find . | "$0" cpio -o -H newc >"$2"'
    run("sh", "-c", pack, busybox, work, path, timeout_s=60)
    shutil.rmtree(work)
