"""The small parts of the compute agent: names, records, turns, processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onelun.compute.attachments import Attached, Attachments
from onelun.compute.names import Names
from onelun.compute.processes import Daemon, daemon_of, end, lives, working_below
from onelun.compute.turns import Turns
from onelun.errors import Conflict

IQN = "iqn.2026-11.io.onelun.nas1:tank.one-1.e1"


def test_a_name_moves_to_another_device_at_once(tmp_path: Path) -> None:
    names = Names(f"{tmp_path}/dev")
    names.put("nas1/tank/one-1", "/dev/loop0")

    names.put("nas1/tank/one-1", "/dev/loop1")

    assert names.all() == {"nas1/tank/one-1": "/dev/loop1"}


def test_a_name_goes_only_from_the_device_that_has_it(tmp_path: Path) -> None:
    names = Names(f"{tmp_path}/dev")
    names.put("nas1/tank/one-1", "/dev/loop1")

    names.remove("nas1/tank/one-1", "/dev/loop0")
    assert names.device("nas1/tank/one-1") == "/dev/loop1"
    names.remove("nas1/tank/one-1", "/dev/loop1")
    names.remove("nas1/tank/one-1", "/dev/loop1")

    assert os.listdir(tmp_path / "dev") == []


def test_a_name_that_is_a_directory_is_a_conflict(tmp_path: Path) -> None:
    names = Names(str(tmp_path))
    (tmp_path / "nas1/tank/one-1").mkdir(parents=True)

    with pytest.raises(Conflict):
        names.put("nas1/tank/one-1", "/dev/loop0")

    assert os.listdir(tmp_path / "nas1/tank") == ["one-1"]


def test_a_record_is_what_was_saved_last(tmp_path: Path) -> None:
    records = Attachments(f"{tmp_path}/attachments")
    records.save(Attached(IQN, "nas1", "nas1/tank/one-1", "/dev/loop0"))
    records.save(Attached(IQN, "nas1", "nas1/tank/one-1", "/dev/loop1", links=("/a",)))

    assert Attachments(f"{tmp_path}/attachments").all() == [
        Attached(IQN, "nas1", "nas1/tank/one-1", "/dev/loop1", links=("/a",))
    ]
    records.remove(IQN)
    records.remove(IQN)
    assert records.get(IQN) is None


def test_a_torn_record_counts_as_none(tmp_path: Path) -> None:
    records = Attachments(str(tmp_path))
    records.save(Attached(IQN, "nas1", "nas1/tank/one-1", "/dev/loop0"))
    (torn,) = tmp_path.glob("*.json")
    torn.write_bytes(b'{"iqn":')

    assert records.all() == []


async def test_turns_come_in_order_of_arrival() -> None:
    turns, order = Turns(), []

    async def work(number: int) -> None:
        async with turns.of("one-1"):
            await asyncio.sleep(0.001)
            order.append(number)

    await asyncio.gather(*(work(number) for number in range(10)))

    assert order == list(range(10))
    assert turns._locks == {}


async def test_a_turn_that_fails_gives_the_next_one_its_turn() -> None:
    turns = Turns()

    with pytest.raises(ValueError, match="broken"):
        async with turns.of("one-1"):
            raise ValueError("broken")

    async with asyncio.timeout(60), turns.of("one-1"), turns.of("one-10"):
        pass


async def test_a_process_is_known_by_its_pid_and_its_start(tmp_path: Path) -> None:
    child = start(f"{tmp_path}/socket")
    daemon = daemon_of(child.pid)
    assert daemon is not None

    assert lives(daemon)
    assert not lives(Daemon(daemon.pid, daemon.started - 1))
    assert await end(Daemon(daemon.pid, daemon.started - 1), grace_s=0)
    assert child.poll() is None
    assert await end(daemon, grace_s=1)
    assert not lives(daemon)
    assert child.wait(60) != 0


async def test_a_process_is_found_by_the_directory_it_works_in(tmp_path: Path) -> None:
    child = start(f"{tmp_path}/target1/socket")

    assert [daemon.pid for daemon in working_below(f"{tmp_path}/target1")] == [child.pid]
    assert working_below(f"{tmp_path}/target") == []
    child.kill()
    child.wait(60)


async def test_a_process_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    child = start(f"{tmp_path}/socket", "signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True);")
    assert child.stdout is not None
    await asyncio.to_thread(child.stdout.readline)
    daemon = daemon_of(child.pid)
    assert daemon is not None

    assert await end(daemon, grace_s=0.05)

    assert child.wait(60) == -9


def start(marker: str, script: str = "") -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-I", "-S", "-c", f"import signal, time; {script} time.sleep(60)", marker]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE)
    # The kernel lets the parent go on a moment before the arguments can be read.
    limit = time.monotonic() + 60
    while marker not in Path(f"/proc/{child.pid}/cmdline").read_text() and time.monotonic() < limit:
        time.sleep(0.001)
    return child
