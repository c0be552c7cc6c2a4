"""The only door to other processes."""

import asyncio
import os
import time

import pytest

from onelun import command
from onelun.errors import CommandFailed


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def _gone(pid):
    for _ in range(6000):
        if not _alive(pid):
            return True
        await asyncio.sleep(0.01)
    return False


async def test_a_command_gives_its_output_and_status():
    result = await command.run("sh", "-c", "cat; echo err >&2; exit 3", timeout_s=60, stdin=b"in", check=False)

    assert result == (3, "in", "err\n")


async def test_a_failing_command_says_what_it_said():
    with pytest.raises(CommandFailed, match="sh failed with status 4: no such thing") as raised:
        await command.run("sh", "-c", "echo no such thing >&2; exit 4", timeout_s=60)

    assert raised.value.facts == {"command": "sh", "status": 4}


async def test_a_killed_command_says_so():
    with pytest.raises(CommandFailed, match=r"^sh was killed by signal 9$") as raised:
        await command.run("sh", "-c", "kill -9 $$", timeout_s=60)

    assert raised.value.facts == {"command": "sh", "status": -9}


@pytest.mark.parametrize(
    ("script", "timeout_s", "sentence"),
    [
        ("kill -9 $$", 60, "qemu-img was killed by signal 9"),
        ("echo oh >&2; kill -9 $$", 60, "qemu-img was killed by signal 9: oh"),
        ("exit 1", 60, "qemu-img failed with status 1: no message"),
        ("sleep 60", 0.2, "qemu-img did not end within 0.2 s"),
    ],
)
async def test_an_error_names_the_tool_that_matters(script: str, timeout_s: float, sentence: str):
    with pytest.raises(CommandFailed) as raised:
        await command.run("prlimit", "--core=0", "sh", "-c", script, timeout_s=timeout_s, called="qemu-img")

    assert str(raised.value) == sentence
    assert raised.value.facts["command"] == "qemu-img"


async def test_a_missing_program_is_named():
    with pytest.raises(CommandFailed, match="cannot run /nowhere/tool"):
        await command.run("/nowhere/tool", timeout_s=60)


async def test_a_command_and_its_children_end_with_its_time(tmp_path):
    pids = tmp_path / "pids"
    started = time.monotonic()

    with pytest.raises(CommandFailed, match="did not end within"):
        await command.run("sh", "-c", f"echo $$ > {pids}; sleep 60 & echo $! >> {pids}; wait", timeout_s=3)

    assert time.monotonic() - started < 50
    for pid in pids.read_text().split():
        assert await _gone(int(pid))


async def test_a_cancelled_caller_ends_its_command(tmp_path):
    pids = tmp_path / "pids"
    running = asyncio.create_task(command.run("sh", "-c", f"echo $$ > {pids}; sleep 60", timeout_s=60))
    while not (pids.exists() and pids.read_text().strip()):
        await asyncio.sleep(0.01)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert await _gone(int(pids.read_text()))


async def test_the_environment_of_the_agent_does_not_leak_into_tools(monkeypatch):
    monkeypatch.setenv("ONELUN_AMQP_URL", "amqp://u:secret@h/")

    result = await command.run("env", timeout_s=60, env={"EXTRA": "1"})

    assert sorted(line.split("=")[0] for line in result.stdout.split()) == ["EXTRA", "LC_ALL", "PATH"]


async def test_output_can_be_followed_as_it_comes():
    pieces = []

    result = await command.run("sh", "-c", "echo a; echo b", timeout_s=60, on_output=pieces.append)

    assert b"".join(pieces) == b"a\nb\n"
    assert result.stdout == ""


async def test_a_spawned_process_outlives_the_call_and_logs_to_its_file(tmp_path):
    log = tmp_path / "log"

    pid = await command.spawn("sh", "-c", "echo started; exec sleep 60", log_path=str(log))

    try:
        while "started" not in (log.read_text() if log.exists() else ""):
            await asyncio.sleep(0.01)
        assert os.getsid(pid) == pid
    finally:
        os.kill(pid, 9)
    assert await _gone(pid)
