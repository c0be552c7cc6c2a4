"""Targets of LIO in the kernel of a guest of scripts/lab."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.targets import IscsiNas
from tests.support.tgt import free_port

from onelun.model import Portal
from onelun.nas.exporters import lio_backstores, lio_configfs, lio_targets
from onelun.nas.exporters.lio import LioExporter

_FORBIDDEN = Path("/etc/modprobe.d/onelun-test.conf")
# In the order in which they let go of each other; the core brings the two that we do not use.
_MODULES = (
    "iscsi_target_mod",
    "target_core_pscsi",
    "target_core_user",
    "target_core_iblock",
    "target_core_file",
    "target_core_mod",
)


class LioNas(IscsiNas):
    """The guest's own LIO, at a port of the test's own. Nothing of ours is left in it at the end."""

    def __init__(self, directory):
        self.port = free_port()
        super().__init__()

    def again(self):
        return LioExporter("nas1", Portal("127.0.0.1", self.port))

    def stop(self):
        """Take LIO out of the kernel, and let nobody load it."""
        self._clear()
        _FORBIDDEN.write_text("".join(f"install {module} /bin/false\n" for module in _MODULES))
        if os.path.isdir(lio_configfs.ISCSI):
            os.rmdir(lio_configfs.ISCSI)
        for module in _MODULES:
            _unload(module)

    def close(self):
        _FORBIDDEN.unlink(missing_ok=True)
        super().close()
        self._clear()
        assert ours() == []

    def _clear(self):
        for found in lio_configfs.listed("nas1"):
            lio_configfs.shut(found.iqn, 30)
            lio_targets.remove("nas1", found.iqn)
        lio_backstores.sweep("nas1")


def ours():
    """What there is of ours in LIO: targets, backstores and their HBAs."""
    hbas = [name for name in lio_configfs.names(lio_configfs.CORE) if name.rpartition("_")[2].isdigit()]
    return [found.iqn for found in lio_configfs.listed("nas1")] + [
        name for name in hbas if int(name.rpartition("_")[2]) >= lio_backstores.FIRST_INDEX
    ]


def _unload(module):
    if os.path.isdir(f"/sys/module/{module}"):
        subprocess.run(["rmmod", module], timeout=20, check=True)
