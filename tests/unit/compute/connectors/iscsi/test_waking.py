"""Which sessions are woken, when, and by which message."""

from __future__ import annotations

import errno
import socket
import struct
from pathlib import Path

import pytest
from tests.support.sysfs import build, put

from onelun.compute.connectors.iscsi import stop
from onelun.compute.connectors.iscsi import waking as module
from onelun.compute.connectors.iscsi.connector import IscsiConnector
from onelun.compute.connectors.iscsi.sysfs import Session, Sysfs
from onelun.compute.connectors.iscsi.waking import Waking
from onelun.errors import CommandFailed

SESSIONS = "class/iscsi_session"


class Host:
    """Sessions 7 (ours, node1) and 8 (node2's), both down; a target that answers; and a clock."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tree = build(place)
        self.sysfs = Sysfs(str(self.tree))
        self.now = 1000.0
        self.answering = True
        self.stopped: list[int] = []
        self.failure: CommandFailed | None = None
        self.waking = Waking("node1", self.sysfs, stop=self._stop, answers=self._answers)
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        for number in (7, 8):
            self.say(number, "FAILED")

    def say(self, number: int, state: str) -> None:
        put(self.tree / f"{SESSIONS}/session{number}/state", state)

    async def look(self, after_s: float = 0.0) -> None:
        self.now += after_s
        await self.waking.look([one for one in self.sysfs.sessions() if one.iface == "onelun.node1"])

    async def _stop(self, session: Session) -> bool:
        self.stopped.append(session.number)
        if self.failure:
            raise self.failure
        return True

    async def _answers(self, session: Session) -> bool:
        return self.answering


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


async def test_a_session_that_stays_down_beside_its_target_is_woken(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await host.look()
    await host.look(19)
    early = list(host.stopped)

    await host.look(2)

    assert (early, host.stopped) == ([], [7])
    assert "tend node=node1 target=iqn.2026-11.io.onelun.nas1:tank.one-1.e1 session=7 woken" in caplog.messages


async def test_a_session_is_woken_once_in_its_time(host: Host) -> None:
    for _ in range(10):
        await host.look(5)

    # Seen at 5, woken at 25 and at 45.
    assert host.stopped == [7, 7]


async def test_a_session_that_is_up_is_left_alone(host: Host) -> None:
    host.say(7, "LOGGED_IN")

    for _ in range(10):
        await host.look(30)

    assert host.stopped == []


async def test_a_session_that_was_up_meanwhile_has_its_time_again(host: Host) -> None:
    await host.look()
    host.say(7, "LOGGED_IN")
    await host.look(15)
    host.say(7, "FAILED")

    await host.look(15)

    assert host.stopped == []


async def test_the_time_begins_when_the_target_answers(host: Host) -> None:
    host.answering = False
    await host.look()
    await host.look(3600)
    host.answering = True
    await host.look(5)
    await host.look(15)
    early = list(host.stopped)

    await host.look(10)

    assert (early, host.stopped) == ([], [7])


async def test_a_target_that_is_away_again_is_awaited_again(host: Host) -> None:
    await host.look()
    host.answering = False
    await host.look(15)
    host.answering = True

    await host.look(15)

    assert host.stopped == []


@pytest.mark.parametrize(
    ("state", "iface", "stops"),
    [
        ("failed", "onelun.node1", True),
        ("bound", "onelun.node1", False),
        ("up", "onelun.node1", False),
        ("failed", "onelun.node2", False),
    ],
)
def test_only_a_connection_of_ours_that_has_failed_is_stopped(host: Host, state: str, iface: str, stops: bool) -> None:
    put(host.tree / "class/iscsi_connection/connection7:0/state", state)

    assert stop.has_failed(str(host.tree), 7, iface) is stops


async def test_a_kernel_that_refuses_is_logged_and_asked_again_later(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host.failure = CommandFailed("the kernel does not")
    await host.look()
    await host.look(30)
    await host.look(5)
    await host.look(30)

    assert host.stopped == [7, 7]
    assert "tend node=node1 target=iqn.2026-11.io.onelun.nas1:tank.one-1.e1 session=7 error=the kernel does not" in (
        caplog.messages
    )


async def test_the_connector_looks_at_our_sessions_alone(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onelun.compute.connectors.iscsi.connector.Sysfs", lambda: host.sysfs)
    seen: list[int] = []

    async def look(_: Waking, sessions: list[Session]) -> None:
        seen.extend(session.number for session in sessions)

    monkeypatch.setattr(Waking, "look", look)

    await IscsiConnector(str(tmp_path / "run"), node="node1").tend()

    assert seen == [7]


async def test_a_target_that_nobody_serves_does_not_answer(host: Host) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        # It is nobody else's meanwhile, and nobody listens on it.
        port = free.getsockname()[1]
        put(host.tree / "class/iscsi_connection/connection7:0/persistent_port", str(port))
        waking = Waking("node1", host.sysfs, after_s=0, stop=host._stop)

        await waking.look(host.sysfs.sessions()[:1])

    assert host.stopped == []


def test_the_message_is_the_kernels_stop_of_a_connection_for_recovery() -> None:
    sent = stop.message(0xFFFF8880_12345678, 7)

    assert len(sent) == 16 + 56
    assert struct.unpack_from("=IHHII", sent) == (72, 18, 0, 0, 0)
    assert struct.unpack_from("=IIQ", sent, 16) == (18, 0, 0xFFFF8880_12345678)
    assert struct.unpack_from("=IIQI", sent, 32) == (7, 0, 0, 3)
    assert set(sent[52:]) == {0}


def test_the_kernels_answer_is_told_from_its_refusal() -> None:
    done = stop.message(1, 7)
    refused = done[:16] + struct.pack("=Ii", 103, -errno.EINVAL) + done[24:]

    assert stop.outcome(done) == 0
    assert stop.outcome(refused) == errno.EINVAL
    assert stop.outcome(b"") == errno.EPROTO
