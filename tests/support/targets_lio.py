"""Targets of LIO in the kernel of a guest of scripts/lab."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

from tests.support.requires import requires
from tests.support.targets import LIMIT_S, IscsiNas
from tests.support.tgt import free_port

from onelun.errors import Busy
from onelun.model import Portal
from onelun.nas.exporters.lio import backstores, configfs, targets
from onelun.nas.exporters.lio.exporter import LioExporter

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
        requires("root", "dmsetup", "losetup", "modprobe")
        self.directory = directory
        self.port = free_port()
        self._exporters = []
        super().__init__()

    def again(self, address="127.0.0.1", **limits):
        made = LioExporter("nas1", Portal(address, self.port), **limits)
        self._exporters.append(made)
        return made

    def options(self, target, address="127.0.0.1"):
        return super().options(target).replace("127.0.0.1", address)

    async def let_go(self):
        for exporter in self._exporters:
            await exporter.close()

    def stop(self):
        """Take LIO out of the kernel, and let nobody load it."""
        self.clear()
        _FORBIDDEN.write_text("".join(f"install {module} /bin/false\n" for module in _MODULES))
        if os.path.isdir(configfs.ISCSI):
            os.rmdir(configfs.ISCSI)
        for module in _MODULES:
            _unload(module)

    def close(self):
        _FORBIDDEN.unlink(missing_ok=True)
        super().close()
        self.clear()
        assert ours() == []

    def clear(self):
        """Remove what there is of ours in LIO."""
        until = time.monotonic() + LIMIT_S
        for found in configfs.listed("nas1"):
            while True:
                configfs.shut(found.iqn, LIMIT_S)
                try:
                    targets.remove("nas1", found.iqn)
                    break
                except Busy:
                    # A login that had begun before is through only now.
                    assert time.monotonic() < until
        backstores.sweep("nas1")


def ours():
    """What there is of ours in LIO: targets, backstores and their HBAs."""
    hbas = [name for name in configfs.names(configfs.CORE) if name.rpartition("_")[2].isdigit()]
    return [found.iqn for found in configfs.listed("nas1")] + [
        name for name in hbas if int(name.rpartition("_")[2]) >= backstores.FIRST_INDEX
    ]


def commands(target):
    """How many SCSI commands the target's volume has got since it was first offered."""
    path = configfs.link(f"{configfs.ISCSI}/{target.iqn}/tpgt_{configfs.TAG}/lun/lun_0")
    return int(configfs.read(f"{path}/statistics/scsi_lu/num_cmds"))


def _unload(module):
    until = time.monotonic() + LIMIT_S
    while os.path.isdir(f"/sys/module/{module}"):
        done = subprocess.run(["rmmod", module], capture_output=True, text=True, timeout=LIMIT_S, check=False)
        # The last thread of a portal, or a look at an attribute, may hold it for a moment.
        assert done.returncode == 0 or ("in use" in done.stderr and time.monotonic() < until), done.stderr
        time.sleep(0.05)


class Block:
    """A block device of `size` bytes over a file, which can hang (`suspend`), and grow up to `room` bytes."""

    def __init__(self, directory, name, size, *, room=None):
        self.file = Path(directory) / f"{name}.img"
        with self.file.open("wb") as file:
            file.truncate(room or size)
        self._name = f"{name}-{os.getpid()}"
        self.path = f"/dev/mapper/{self._name}"
        self._loop = tool("losetup", "-f", "--show", str(self.file)).strip()
        tool("dmsetup", "create", self._name, "--table", self._table(size))

    def suspend(self):
        """From now on every request waits."""
        tool("dmsetup", "suspend", self._name)

    def resume(self):
        tool("dmsetup", "resume", self._name)

    def grow(self, size):
        self.suspend()
        tool("dmsetup", "reload", self._name, "--table", self._table(size))
        self.resume()

    def close(self):
        self.resume()
        tool("dmsetup", "remove", "--retry", self._name)
        tool("losetup", "-d", self._loop)

    def _table(self, size):
        return f"0 {size // 512} linear {self._loop} 0"


class FarHost:
    """A network namespace at the end of a cable that can be cut; `address` is the guest's on it."""

    address = "198.18.77.1"

    def __init__(self):
        self._name = f"far{os.getpid()}"
        tool("ip", "netns", "add", self._name)
        tool("ip", "link", "add", "far0", "type", "veth", "peer", "name", "near0", "netns", self._name)
        tool("ip", "addr", "add", f"{self.address}/24", "dev", "far0")
        tool("ip", "link", "set", "far0", "up")
        tool("ip", "-n", self._name, "addr", "add", "198.18.77.2/24", "dev", "near0")
        tool("ip", "-n", self._name, "link", "set", "near0", "up")

    def start(self, *command):
        """Run a command there until `close()`."""
        return subprocess.Popen(["ip", "netns", "exec", self._name, *command], stdout=subprocess.DEVNULL)

    def cut(self):
        tool("ip", "link", "set", "far0", "down")

    def close(self):
        tool("ip", "link", "del", "far0")
        tool("ip", "netns", "del", self._name)


def tool(*command):
    """What a command of the system prints. It must succeed."""
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=True).stdout


def killed_before(step, act, *args):
    """Run `act` in a process that is killed before its change number `step` of LIO; whether it came so far."""
    pid = os.fork()
    if pid == 0:
        left = [step]

        def hook(event, facts):
            if _changes_lio(event, facts):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            act(*args)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return os.WIFSIGNALED(status)


def _changes_lio(event, facts):
    path = facts[1] if event == "os.symlink" else facts[0] if facts else None
    if not str(path).startswith(configfs.CONFIGFS):
        return False
    return event in ("os.mkdir", "os.rmdir", "os.symlink", "os.remove") or (event == "open" and "w" in str(facts[1]))
