"""What stands in the way of LIO, and bringing it in: the kernel's modules, and the directory it is ruled by."""

from __future__ import annotations

import importlib.util
import os

from onelun.command import run
from onelun.errors import CommandFailed, Unreachable
from onelun.model import Portal
from onelun.naming import IQN_PREFIX
from onelun.nas.exporters.lio import configfs
from onelun.nas.exporters.portal import address_lacks, port_taken

_MODULES = ("configfs", "target_core_mod", "target_core_iblock", "target_core_file", "iscsi_target_mod")
# Where targetcli and Debian's targetctl keep what they restore at the next boot.
_SAVED = ("/etc/target/saveconfig.json", "/etc/rtslib-fb-target/saveconfig.json")
_LOAD_S = 20.0


async def load() -> None:
    """Bring LIO in when it is not there: load its modules and mount configfs. Raises Unreachable when that fails."""
    if configfs.is_loaded():
        return
    if lacking := await _run("modprobe", "-a", *_MODULES):
        raise Unreachable(f"the target service of the kernel is not loaded: modprobe iscsi_target_mod ({lacking})")
    if not os.path.ismount(configfs.CONFIGFS) and (lacking := await _mount()):
        raise Unreachable(f"configfs is not mounted: mount -t configfs configfs {configfs.CONFIGFS} ({lacking})")
    try:
        # The front of iSCSI comes with the first look at its name (target_core_register_fabric() of Linux 6.1).
        os.makedirs(configfs.ISCSI, exist_ok=True)
    except OSError as error:
        raise Unreachable(
            f"the target service of the kernel is not loaded: modprobe iscsi_target_mod ({error.strerror})"
        ) from error


async def obstacles(portal: Portal) -> list[str]:
    """Why exporting would fail, each as a sentence that says what to do. Changes nothing: it loads no module."""
    found = []
    if importlib.util.find_spec("rtslib_fb") is None:
        found.append("the library rtslib-fb is not installed: pip install rtslib-fb")
    if not configfs.is_loaded():
        found += await _unloaded()
    found += address_lacks(portal) or ([] if _is_lio(portal) else port_taken(portal))
    return found + [
        f"{path} would bring targets of onelun back at the next boot: remove them there (targetcli saved them)"
        for path in _SAVED
        if IQN_PREFIX in configfs.read(path)
    ]


async def _unloaded() -> list[str]:
    """One sentence for all modules: they are usually lacking together, for one reason."""
    lacking = {
        module: reason
        for module in _MODULES[1:]
        if not os.path.isdir(f"/sys/module/{module}") and (reason := await _unloadable(module))
    }
    return [
        f"the kernel does not load {', '.join(lacking)} ({reason}): install the kernel's modules, or allow it in /etc/modprobe.d"
        for reason in list(lacking.values())[:1]
    ]


async def _unloadable(module: str) -> str | None:
    try:
        steps = (await run("modprobe", "-n", "-v", module, timeout_s=_LOAD_S)).stdout
    except CommandFailed as error:
        return str(error)
    # How hardening guides forbid a module; a dry run shows the command and is content with it.
    forbidden = [
        line.strip() for line in steps.splitlines() if line.startswith(("install /bin/false", "install /bin/true"))
    ]
    return forbidden[0] if forbidden else None


def _is_lio(portal: Portal) -> bool:
    """Whether LIO itself listens there already."""
    name = str(portal)
    return any(
        name in configfs.names(f"{group}/np")
        for iqn in configfs.names(configfs.ISCSI)
        for group in configfs.groups(iqn)
    )


async def _mount() -> str | None:
    return await _run("mount", "-t", "configfs", "configfs", configfs.CONFIGFS)


async def _run(*argv: str) -> str | None:
    """What a command complained of."""
    try:
        await run(*argv, timeout_s=_LOAD_S)
    except CommandFailed as error:
        return str(error)
    return None
