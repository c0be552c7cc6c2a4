"""Targets and their initiators: in memory, and on a private tgtd with the programs of libiscsi and qemu."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time

from tests.support.requires import requires
from tests.support.tgt import PrivateTgtd, free_port

from onelun.errors import NotFound, Rejected
from onelun.model import Portal
from onelun.nas.exporters.memory import MemoryExporter
from onelun.nas.exporters.tgt.exporter import TgtExporter

# A program of an initiator's is through in a second, and in a guest on a busy machine in many.
LIMIT_S = 60


class RefusedError(Exception):
    """The initiator was not let in, or its command failed."""


class MemoryNas:
    """Targets in memory; an initiator is a method call."""

    def __init__(self, directory):
        self.exporter = MemoryExporter("nas1", Portal("127.0.0.1"))

    def again(self):
        return self.exporter

    def stop(self):
        self.exporter.running = False

    async def let_go(self):
        """What an exporter holds in the loop ends."""

    def close(self):
        """Nothing is left of it."""

    def identity(self, target):
        """The serial and the size in bytes that an initiator sees. Raises RefusedError."""
        with self._session(target):
            return self.exporter.identity(target.iqn, target.initiator)

    def write(self, target, offset, content):
        with self._session(target):
            self.exporter.write(target.iqn, target.initiator, offset, content)

    def read(self, target, offset, length):
        with self._session(target):
            return self.exporter.read(target.iqn, target.initiator, offset, length)

    def login(self, target):
        """A session that stays, until the test ends."""
        return MemorySession(self, target)

    def _session(self, target):
        return _MemoryLogin(self.exporter, target)


class _MemoryLogin:
    def __init__(self, exporter, target, *, stays=False):
        self.exporter = exporter
        self.target = target
        self.stays = stays

    def __enter__(self):
        try:
            self.exporter.log_in(self.target.iqn, self.target.initiator, self.target.secret)
        except Rejected as error:
            raise RefusedError from error
        except NotFound as error:
            raise RefusedError from error

    def __exit__(self, kind, error, trace):
        self.exporter.log_out(self.target.iqn, self.target.initiator)
        if isinstance(error, Rejected):
            raise RefusedError from error


class MemorySession:
    """A logged-in initiator."""

    def __init__(self, nas, target):
        self.exporter = nas.exporter
        self.target = target
        _MemoryLogin(self.exporter, target).__enter__()

    def write(self, offset, byte, length):
        try:
            self.exporter.write(self.target.iqn, self.target.initiator, offset, bytes([byte]) * length)
        except Rejected as error:
            raise RefusedError from error

    def close(self):
        self.exporter.log_out(self.target.iqn, self.target.initiator)


class IscsiNas:
    """Targets of iSCSI; initiators are libiscsi's and qemu's programs. A kind of it has `port`, and makes `again()`."""

    def __init__(self):
        requires("iscsi-inq", "iscsi-readcapacity16", "qemu-io")
        self.sessions = []
        self.exporter = self.again()

    def identity(self, target):
        url = f"iscsi://127.0.0.1:{self.port}/{target.iqn}/{self.exporter.lun}"
        page = self._run(["iscsi-inq", "-i", target.initiator, "-e", "1", "-c", "128", url], target)
        serial = next(line.partition(":")[2].strip() for line in page.splitlines() if "Serial" in line)
        size = self._run(["iscsi-readcapacity16", "-i", target.initiator, "-s", url], target)
        return serial.strip("[]"), int(size.strip())

    def write(self, target, offset, content):
        byte = content[0]
        assert content == bytes([byte]) * len(content)
        self._io(target, f"write -P {byte} {offset} {len(content)}", "flush")

    def read(self, target, offset, length):
        said = self._io(target, f"read -v {offset} {length}")
        return bytes.fromhex("".join(re.findall(r"(?m)^[0-9a-f]{8}:  ((?:[0-9a-f]{2} )+)", said)))

    def discard(self, target, offset, length):
        self._io(target, f"discard {offset} {length}")

    def login(self, target):
        session = IscsiSession(self.options(target))
        self.sessions.append(session)
        return session

    def options(self, target):
        known = f"driver=iscsi,transport=tcp,portal=127.0.0.1:{self.port},target={target.iqn},lun={self.exporter.lun}"
        secret = f",user={target.user},password={target.secret}" if target.secret else ""
        return f"{known}{secret},initiator-name={target.initiator}"

    async def let_go(self):
        """What an exporter holds in the loop ends."""

    def close(self):
        for session in self.sessions:
            session.close()

    def _io(self, target, *commands):
        words = [word for command in commands for word in ("-c", command)]
        return self._run(["qemu-io", "-d", "unmap", "--image-opts", self.options(target), *words], target)

    def _run(self, command, target):
        environment = {**os.environ, "LIBISCSI_CHAP_USERNAME": target.user, "LIBISCSI_CHAP_PASSWORD": target.secret}
        if not target.secret:
            del environment["LIBISCSI_CHAP_USERNAME"], environment["LIBISCSI_CHAP_PASSWORD"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        if done.returncode or "error" in (done.stdout + done.stderr).lower():
            raise RefusedError(done.stdout + done.stderr)
        return done.stdout


class TgtNas(IscsiNas):
    """A tgtd of the test's own."""

    def __init__(self, directory):
        requires("tgtd")
        self.port = free_port()
        self.tgtd = PrivateTgtd(directory, [f"127.0.0.1:{self.port}"], threads=2)
        self.tgtd.start()
        super().__init__()

    def again(self):
        return TgtExporter("nas1", self.tgtd.control_socket, Portal("127.0.0.1", self.port))

    def stop(self):
        self.tgtd.kill()

    def close(self):
        super().close()
        self.tgtd.stop()


class IscsiSession:
    """qemu-io, which stays logged in and does what it is told."""

    def __init__(self, options):
        # On a terminal it shows each answer at once; into a pipe, only with the next command.
        self._terminal, inner = pty.openpty()
        self._process = subprocess.Popen(
            ["qemu-io", "-t", "writeback", "--image-opts", options], stdin=subprocess.PIPE, stdout=inner, stderr=inner
        )
        os.close(inner)
        # It asks for a command when it is logged in.
        self._read()

    def write(self, offset, byte, length):
        self._tell(f"write -P {byte} {offset} {length}")

    def flush(self):
        self._tell("flush")

    def close(self):
        if self._terminal < 0:
            return
        self.kill()
        self._process.stdin.close()
        os.close(self._terminal)
        self._terminal = -1

    def kill(self):
        self._process.kill()
        self._process.wait(LIMIT_S)

    def _tell(self, command):
        try:
            self._process.stdin.write(f"{command}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise RefusedError("it has ended") from error
        self._read()

    def _read(self):
        said = ""
        until = time.monotonic() + LIMIT_S
        while not said.endswith("qemu-io> "):
            if time.monotonic() > until:
                raise RefusedError(said)
            if select.select([self._terminal], [], [], 0.1)[0]:
                try:
                    said += os.read(self._terminal, 65536).decode()
                except OSError as error:
                    # EIO: the other side of the terminal is closed.
                    raise RefusedError(said) from error
        if "ailed" in said or "rror" in said:
            raise RefusedError(said)
