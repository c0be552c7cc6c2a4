"""Calls that the kernel may never come back from, and the processes that make them."""

import asyncio
import errno
import os
import signal
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from onelun.calls import Calls
from onelun.compute import flush
from onelun.compute.connectors.iscsi import inquiry, writing
from onelun.errors import CommandFailed

LIMIT_S = 60


@pytest.fixture
async def calls() -> AsyncIterator[Calls]:
    made = Calls()
    yield made
    await made.close()


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], str]:
    """The file of a program whose call does that."""

    def write(body: str) -> str:
        path = tmp_path / "program.py"
        path.write_text(f"import os, sys, time\n\ndef call(*args):\n{textwrap.indent(body, '    ')}\n")
        return str(path)

    return write


async def test_a_call_gets_its_arguments_and_gives_its_answer(calls, program):
    said = await calls.make(
        program("print('noise'); return '-'.join(args)"), "a", "\u00e4 b", timeout_s=LIMIT_S, called="it"
    )

    assert said == "a-\u00e4 b"


async def test_one_process_makes_one_call_after_the_other(calls, program):
    pid = program("return os.getpid()")

    assert len({await calls.make(pid, timeout_s=LIMIT_S, called="it") for _ in range(3)}) == 1


async def test_a_process_that_has_nothing_to_do_ends_and_the_next_call_has_another_one(monkeypatch, calls, program):
    monkeypatch.setattr("onelun.calls._IDLE_S", 0.1)
    pid = program("return os.getpid()")
    first = int(await calls.make(pid, timeout_s=LIMIT_S, called="it"))
    async with asyncio.timeout(LIMIT_S):
        while os.path.exists(f"/proc/{first}"):
            await asyncio.sleep(0.01)

    assert int(await calls.make(pid, timeout_s=LIMIT_S, called="it")) != first


async def test_calls_at_once_do_not_wait_for_each_other(calls, program, tmp_path):
    # Each ends when it sees the other one.
    meets = program("open(args[0], 'w').close()\nwhile not os.path.exists(args[1]): time.sleep(0.01)\nreturn ''")
    one, other = str(tmp_path / "one"), str(tmp_path / "other")

    await asyncio.gather(
        calls.make(meets, one, other, timeout_s=LIMIT_S, called="it"),
        calls.make(meets, other, one, timeout_s=LIMIT_S, called="it"),
    )


async def test_a_failure_of_the_system_keeps_its_number(calls, tmp_path):
    with pytest.raises(OSError) as raised:
        await calls.make(writing.__file__, str(tmp_path / "none"), "1", timeout_s=LIMIT_S, called="it")

    assert raised.value.errno == errno.ENOENT


async def test_another_failure_says_what_it_is(calls, program):
    with pytest.raises(CommandFailed, match="the call failed: ValueError: no such thing"):
        await calls.make(program("raise ValueError('no such thing')"), timeout_s=LIMIT_S, called="the call")


async def test_a_call_that_does_not_end_is_killed_and_the_next_one_has_another_process(calls, program, tmp_path):
    told = tmp_path / "pid"
    hangs = program("open(args[0], 'w').write(str(os.getpid()))\nif args[1]: time.sleep(1000)\nreturn ''")
    await calls.make(hangs, str(told), "", timeout_s=LIMIT_S, called="it")

    with pytest.raises(CommandFailed, match=r"the call did not end within 0\.5 s"):
        await calls.make(hangs, str(told), "1", timeout_s=0.5, called="the call")

    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text()), 0)
    await calls.make(hangs, str(told), "", timeout_s=LIMIT_S, called="it")


async def test_a_cancelled_call_is_killed(calls, program, tmp_path):
    told = tmp_path / "pid"
    hangs = program(
        "open(args[0] + '.new', 'w').write(str(os.getpid()))\nos.rename(args[0] + '.new', args[0])\ntime.sleep(1000)"
    )
    task = asyncio.create_task(calls.make(hangs, str(told), timeout_s=LIMIT_S, called="it"))
    while not told.exists():
        await asyncio.sleep(0.01)

    task.cancel()
    await asyncio.wait([task])

    assert task.cancelled()
    with pytest.raises(ProcessLookupError):
        os.kill(int(told.read_text()), 0)


async def test_a_process_that_somebody_ended_while_it_was_idle_is_replaced(calls, program):
    pid = program("return os.getpid()")
    first = int(await calls.make(pid, timeout_s=LIMIT_S, called="it"))
    os.kill(first, signal.SIGKILL)

    assert int(await calls.make(pid, timeout_s=LIMIT_S, called="it")) != first


async def test_a_process_that_dies_in_its_first_call_is_a_failure(calls, program):
    with pytest.raises(CommandFailed, match="the call failed: its process ended"):
        await calls.make(program("os._exit(3)"), timeout_s=LIMIT_S, called="the call")


async def test_what_is_written_is_all_of_it_and_a_flush_closes_its_file(calls, tmp_path):
    path = tmp_path / "file"
    path.write_text("")

    await calls.make(writing.__file__, str(path), "0 0 1", timeout_s=LIMIT_S, called="it")
    await calls.make(flush.__file__, str(path), timeout_s=LIMIT_S, called="it")

    assert path.read_text() == "0 0 1"


async def test_a_question_to_no_disk_is_a_failure_of_the_system(calls):
    with pytest.raises(OSError):
        await calls.make(inquiry.__file__, "/dev/null", timeout_s=LIMIT_S, called="it")
