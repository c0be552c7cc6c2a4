"""What the target daemons, the initiator, its sysfs and libiscsi's tools tell, damaged or forged."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import strategies as st
from tests.support.fuzzing import Loop, attacks, refusable
from tests.support.mutation import HOSTILE, as_bytes, blobs, lines_of, texts
from tests.support.sysfs import RECORDED, build
from tests.unit.nas.exporters.tgt.test_listing import IQN, SHOWN

from onelun.calls import Calls
from onelun.compute.connectors import login
from onelun.compute.connectors.base import Export
from onelun.compute.connectors.iscsi.admin import Iscsiadm
from onelun.compute.connectors.iscsi.disk import Disks
from onelun.compute.connectors.iscsi.sysfs import Sysfs, device_number
from onelun.compute.connectors.userspace import loop as loops
from onelun.model import Portal, Target
from onelun.nas.exporters.tgt.exporter import TgtExporter
from onelun.nas.exporters.tgt.listing import parse_accounts, parse_connections, parse_targets, parse_tids

UUID = "0a7b46e2-1111-4222-8333-aaaabbbbcccc"
EXPORT = Export(IQN, Portal("127.0.0.1", 3260), "iqn.2026-11.io.onelun.host:node1", uuid=UUID, size_bytes=64 << 20)
LISTS = (
    SHOWN,
    "Session: 7\n    Connection: 0\n        Initiator: iqn.x:a\n",
    "Account list:\n    nas1:tank.one-1.e1\n",
    f"Driver: iscsi\nState: ready\n        Target 3: {IQN}\n",
)


@attacks("tools", st.one_of(texts(LISTS), lines_of(LISTS)))
def test_lists_of_tgtd(text: str) -> None:
    for read in (parse_tids, parse_connections, parse_accounts, parse_targets):
        read(text)


class Daemon:
    """Listens where tgtd would, and answers every request with `answer`."""

    def __init__(self, path: str) -> None:
        self.answer = b""
        self._done = threading.Event()
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.settimeout(0.2)
        self._listening.bind(path)
        self._listening.listen(64)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._done.is_set():
            # Who asks may go before it has read all of the answer.
            with contextlib.suppress(OSError), self._listening.accept()[0] as connection:
                connection.settimeout(2.0)
                connection.recv(1 << 16)
                connection.sendall(self.answer)

    def close(self) -> None:
        self._done.set()
        self._thread.join(10)
        self._listening.close()


@pytest.fixture(scope="module")
def tgtd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, TgtExporter]]:
    path = str(tmp_path_factory.mktemp("tgtd") / "socket")
    daemon = Daemon(path)
    yield daemon, TgtExporter("nas1", path, Portal("127.0.0.1", 1), fence_s=1.0, request_s=2.0)
    daemon.close()


def framed(text: bytes, code: int = 0) -> bytes:
    return struct.pack("=II", code, 8 + len(text)) + text


@attacks(
    "tools",
    st.one_of(blobs([framed(text.encode()) for text in LISTS]), texts(LISTS).map(lambda text: framed(as_bytes(text)))),
)
def test_answers_of_tgtd(loop: Loop, tgtd, tools, answer: bytes) -> None:
    daemon, exporter = tgtd
    daemon.answer = answer[: 1 << 20]
    loop.run(exporter.check())
    refusable(loop, exporter.exports())
    refusable(loop, exporter.unexport(IQN))
    loop.run(exporter.export(Target(IQN, "/dev/null", UUID, 64 << 20, EXPORT.initiator, "u", "s" * 16)))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("sys"))


FILES = tuple(line.partition(" = ")[0] for line in RECORDED.read_text().splitlines() if " = " in line)


@attacks(
    "tools", st.sampled_from(FILES), st.one_of(st.sampled_from(HOSTILE), texts(["0", "running", "8:0", "127.0.0.1"]))
)
def test_texts_of_sysfs(loop: Loop, tree: Path, name: str, text: str) -> None:
    file = tree / name
    before = file.read_bytes()
    file.write_bytes(as_bytes(text))
    try:
        sysfs = Sysfs(str(tree))
        for session in sysfs.sessions():
            sysfs.account(session)
            sysfs.scan_file(session)
            for disk in sysfs.disks(session):
                assert disk.size_bytes >= 0
                device_number(disk)
    finally:
        file.write_bytes(before)


@attacks("tools", st.sampled_from(HOSTILE), share=0.1)
def test_names_in_sysfs(loop: Loop, tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    word = os.fsdecode(as_bytes(name).replace(b"\0", b"").replace(b"/", b"")[:100]) or "x"
    root = build(tmp_path_factory.mktemp("names"))
    try:
        for above in (
            "class/iscsi_session",
            "devices/platform/host0/session7",
            "devices/platform/host0/session7/target0:0:0",
        ):
            for named in (word, f"session{word}", f"target{word}", f"0:0:0:{word}"):
                if named not in (".", ".."):
                    (root / above / named).mkdir(exist_ok=True)
        sysfs = Sysfs(str(root))
        for session in sysfs.sessions():
            sysfs.disks(session)
    finally:
        shutil.rmtree(root)


@pytest.fixture(scope="module")
def portal() -> Iterator[Portal]:
    """Somebody who takes connections."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        done = threading.Event()

        def take() -> None:
            listening.settimeout(0.2)
            while not done.is_set():
                try:
                    listening.accept()[0].close()
                except TimeoutError:
                    continue

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield Portal("127.0.0.1", listening.getsockname()[1])
        done.set()
        thread.join(5)


SAID = (
    "67108864\n",
    f"Unit Serial Number:[{UUID}]\n",
    f"67108864 {UUID}\n",
    "Failed to log in: (513)",
    "LOGICAL_UNIT_NOT_SUPPORTED",
)
STATUSES = st.sampled_from([0, 0, 0, 0, 1, 5, 8, 15, 20, 21, 24, 255, -9])


class Saying(Calls):
    """What a call brings."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    async def make(self, program: str, *args: str, timeout_s: float, called: str) -> str:
        return self._text


@attacks("tools", texts(SAID), STATUSES)
def test_a_disk_that_is_asked_who_it_is(loop: Loop, tools, portal: Portal, tree: Path, text: str, status: int) -> None:
    tools.say(text, text, status)
    export = Export(IQN, portal, EXPORT.initiator, uuid=UUID, size_bytes=64 << 20, user="u", secret="s" * 16)
    sysfs = Sysfs(str(tree))
    disk = sysfs.disks(sysfs.sessions()[0])[1]

    refusable(loop, login.identify(export))
    refusable(loop, Disks(sysfs, Saying(text)).verify(disk, export))
    refusable(loop, loops.attach("/nowhere", readonly=False))
    if status != 6:
        admin = Iscsiadm(lock="/nowhere")
        refusable(loop, admin.logout(IQN, portal))
        loop.run(asyncio.wait_for(admin.login(export, portal), 20))
