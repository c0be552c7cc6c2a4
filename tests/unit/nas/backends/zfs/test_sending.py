"""Reading what changed out of a process: a stand-in for zfs that ends well, badly, too early, or not at all."""

import asyncio
import os
import struct
import time
from types import SimpleNamespace

import pytest

from onelun import command
from onelun.errors import CommandFailed, Conflict, NotFound, ProtocolError
from onelun.model import Extent, Kind, Owner, Snapshot, State, Volume
from onelun.nas.backends.zfs import sending
from onelun.nas.backends.zfs.command import Zfs
from onelun.nas.backends.zfs.sending import Sending
from onelun.nas.backends.zfs.snapshots import Kept
from onelun.nas.backends.zfs.stream import BEGIN, END, MAGIC, RECORD_BYTES, WRITE

MIB = 1 << 20
VOLUME = Volume("tank", "one-1", "6b2f7a52-6a04-4e9b-9d0b-3a2f0c0a7a11", MIB, State.READY, Owner(kind=Kind.IMAGE))


def _record(kind, **fields):
    head = bytearray(RECORD_BYTES)
    struct.pack_into("<I", head, 0, kind)
    for at, value in fields.items():
        struct.pack_into("<Q", head, int(at.removeprefix("at")), value)
    return bytes(head)


STREAM = _record(BEGIN, at8=MAGIC) + _record(WRITE, at8=1, at24=8192, at32=4096) + bytes(4096) + _record(END)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Make the changes of a volume whose `zfs send` is a script; `started` has the processes."""
    started = []
    pipe = command.pipe

    def make(script, stream=STREAM):
        (tmp_path / "stream").write_bytes(stream)

        async def stand_in(*argv, **ends):
            assert argv[:2] == ("zfs", "send")
            assert argv[-3:] == ("-i", "tank/of/one-1@snap:a", "tank/of/one-1@snap:b")
            started.append(await pipe("sh", "-c", f"cd {tmp_path}; {script}", **ends))
            return started[-1]

        monkeypatch.setattr(command, "pipe", stand_in)
        kept = [Kept("one-1", Snapshot(name, 0.0, MIB)) for name in "ab"]

        async def snapshots_of(entry):
            return kept

        tree = SimpleNamespace(path=lambda leaf: f"tank/of/{leaf}")
        made = Sending(Zfs("tank", "tank/of"), tree, SimpleNamespace(of=snapshots_of))
        return made, started

    return make


async def ask(made, since="a", until="b"):
    return await made.changed(SimpleNamespace(volume=VOLUME), since, until)


@pytest.fixture(autouse=True)
def nothing_left():
    """No descriptor of a pipe stays open."""
    before = os.listdir("/proc/self/fd")
    yield
    until = time.monotonic() + 60
    while len(os.listdir("/proc/self/fd")) > len(before) + 1 and time.monotonic() < until:
        time.sleep(0.05)
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 1


async def test_what_the_stream_writes_has_changed(made):
    changes, started = made("cat stream")

    assert await ask(changes) == [Extent(8192, 4096, data=True)]
    assert started[0].process.returncode == 0


async def test_the_same_snapshot_twice_needs_no_stream(made):
    changes, started = made("exit 1")

    assert await ask(changes, "a", "a") == []
    assert started == []


async def test_a_missing_snapshot_is_not_found_and_nothing_is_sent(made):
    changes, started = made("exit 1")

    for since, until in (("a", "c"), ("c", "b")):
        with pytest.raises(NotFound):
            await ask(changes, since, until)
    assert started == []


async def test_a_base_that_is_no_ancestor_asks_for_a_full_backup(made):
    said = "warning: cannot send 'tank/of/one-1@snap:b': not an earlier snapshot from the same fs"
    changes, _ = made(f'echo "{said}" >&2; exit 1')

    with pytest.raises(Conflict, match=r"no ancestor of b.*full backup is needed"):
        await ask(changes)


async def test_zfs_itself_says_why_its_stream_ended_too_early(made):
    changes, _ = made("head -c 700 stream; echo \"warning: cannot send 'x': Input/output error\" >&2; exit 1")

    with pytest.raises(CommandFailed, match="Input/output error"):
        await ask(changes)


async def test_a_stream_that_ends_well_and_has_no_end_is_nothing_to_rely_on(made):
    changes, _ = made("head -c 700 stream")

    with pytest.raises(ProtocolError):
        await ask(changes)


async def test_a_failure_after_a_whole_stream_is_a_failure(made):
    changes, _ = made("cat stream; echo broken >&2; exit 3")

    with pytest.raises(CommandFailed, match="broken"):
        await ask(changes)


async def test_what_is_no_stream_is_given_up_and_its_sender_ended(made, monkeypatch):
    monkeypatch.setattr(sending, "_END_S", 0.2)
    changes, started = made("while :; do echo no stream at all; done")

    with pytest.raises((ProtocolError, CommandFailed)):
        await ask(changes)
    assert started[0].process.returncode is not None


async def test_a_sender_that_gives_nothing_is_given_up(made, monkeypatch):
    monkeypatch.setattr(sending, "_SILENT_S", 0.3)
    changes, started = made("head -c 700 stream; sleep 600")

    with pytest.raises(CommandFailed, match="gave nothing"):
        await ask(changes)
    assert started[0].process.returncode is not None


async def test_who_is_cancelled_ends_the_sender(made):
    changes, started = made("head -c 700 stream; sleep 600")
    asked = asyncio.create_task(ask(changes))
    while not started:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)

    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked

    assert started[0].process.returncode is not None


async def test_many_at_once_come_to_their_ends(made):
    changes, started = made("sleep 0.1; cat stream")

    found = await asyncio.gather(*(ask(changes) for _ in range(20)))

    assert found == [[Extent(8192, 4096, data=True)]] * 20
    assert len(started) == 20
