"""What a host must have for the data path in user space: programs, device nodes, root."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

from onelun import command
from onelun.errors import CommandFailed

# Each with the package that Debian has it in.
_PROGRAMS = {
    "qemu-storage-daemon": "qemu-system-common",
    "nbdfuse": "libnbd-bin",
    "iscsi-inq": "libiscsi-bin",
    "iscsi-readcapacity16": "libiscsi-bin",
    "losetup": "mount",
    "umount": "mount",
}
# Each with the kernel's module that makes it.
_NODES = {"/dev/fuse": "fuse", "/dev/loop-control": "loop"}
_PROBE_S = 10.0
# Nobody listens there, so that a driver which is present ends at once.
_NOWHERE = "driver=iscsi,node-name=none,transport=tcp,portal=127.0.0.1:1,target=iqn.2026-11.io.onelun.check:none,lun=1"


async def lacking(run_dir: str) -> list[str]:
    """What stands in the way, each as one sentence; `run_dir` is the connections' directory, which may not be there yet."""
    found = [] if os.geteuid() == 0 else ["the agent is not root: it makes block devices, so start it as root"]
    found += lacking_programs(_PROGRAMS)
    found += lacking_nodes(_NODES)
    if os.path.lexists(run_dir) and not os.path.isdir(run_dir):
        found.append(f"{run_dir} is no directory: remove it, or configure another state directory")
    if shutil.which("qemu-storage-daemon", path=command.SEARCH_PATH):
        found += await _lacking_driver()
    return found


def lacking_programs(packages: Mapping[str, str], *, path: str = command.SEARCH_PATH) -> list[str]:
    """A sentence for each package of which a program is missing; `packages` is by program."""
    missing = [program for program in packages if shutil.which(program, path=path) is None]
    return [
        f"{' and '.join(program for program in missing if packages[program] == package)} cannot be found:"
        f" install the package {package}"
        for package in dict.fromkeys(packages[program] for program in missing)
    ]


def lacking_nodes(modules: Mapping[str, str]) -> list[str]:
    """A sentence for each device node that is absent or closed to us; `modules` is by node."""
    return [
        f"{node} cannot be opened: load the kernel's module {module} (modprobe {module})"
        for node, module in modules.items()
        if not os.access(node, os.R_OK | os.W_OK)
    ]


async def _lacking_driver() -> list[str]:
    """A sentence when qemu-storage-daemon knows no iSCSI: Debian packs its drivers apart."""
    try:
        tried = await command.run("qemu-storage-daemon", "--blockdev", _NOWHERE, timeout_s=_PROBE_S, check=False)
    except CommandFailed as error:
        return [f"{error}: install the package qemu-system-common anew"]
    if "Unknown driver" in tried.stderr:
        return ["qemu-storage-daemon has no iSCSI driver: install the package qemu-block-extra"]
    return []
