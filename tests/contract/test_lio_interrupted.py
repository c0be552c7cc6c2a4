"""The exporter `lio` when its worker, or its agent, is killed: what is left admits nobody, and is completed or removed."""

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
import uuid as uuids

import msgspec
import pytest
from tests.support.requires import guest
from tests.support.targets import RefusedError

from onelun.model import Target
from onelun.naming import Source, target_account, target_iqn
from onelun.nas.exporters.lio import configfs

pytestmark = [guest("lio"), pytest.mark.timeout(300)]
MIB = 1 << 20
# More than any act has.
MOST_STEPS = 80


@pytest.fixture
async def lio(tmp_path):
    """A guest's LIO, in the kernel already."""
    from tests.support.targets_lio import LioNas

    made = LioNas(tmp_path)
    try:
        await made.exporter.exports()
        yield made
    finally:
        await made.let_go()
        made.close()


def made_target(directory, volume="one-1", *, epoch=1, uuid=None):
    device = directory / volume
    with device.open("ab") as file:
        file.truncate(MIB)
    iqn = target_iqn(Source("nas1", "tank", volume), epoch)
    return Target(
        iqn=iqn,
        device=str(device),
        uuid=uuid or str(uuids.uuid4()),
        size_bytes=MIB,
        initiator="iqn.2026-11.io.onelun.host:node1",
        user=target_account(iqn),
        secret=secrets.token_hex(8),
    )


async def admits(nas, target, **changes):
    try:
        await asyncio.to_thread(nas.identity, msgspec.structs.replace(target, **changes))
    except RefusedError:
        return False
    return True


def make(nas, target):
    from onelun.nas.exporters.lio import targets

    targets.make("nas1", nas.exporter.portal, target)


def unmake(target):
    from onelun.nas.exporters.lio import targets

    configfs.shut(target.iqn, 5)
    targets.remove("nas1", target.iqn)


def ours():
    from tests.support.targets_lio import ours

    return ours()


def killed_before(step, act, *args):
    from tests.support.targets_lio import killed_before

    return killed_before(step, act, *args)


@pytest.mark.long
async def test_an_export_killed_at_any_step_admits_nobody_and_is_completed_by_the_next(lio, tmp_path):
    target = made_target(tmp_path)

    for step in range(MOST_STEPS):
        killed = killed_before(step, make, lio, target)
        enabled = configfs.read(f"{configfs.ISCSI}/{target.iqn}/tpgt_1/enable") == "1"
        assert enabled == (not killed)
        assert await admits(lio, target) == enabled
        assert not await admits(lio, target, secret="")
        assert not await admits(lio, target, secret=secrets.token_hex(8))

        await lio.exporter.export(target)

        assert await asyncio.to_thread(lio.identity, target) == (target.uuid, MIB)
        await lio.exporter.unexport(target.iqn)
        assert ours() == []
        if not killed:
            assert step > 15
            return
    pytest.fail("the export never came to its end")


@pytest.mark.long
async def test_an_export_killed_at_any_step_is_removed_by_unexport(lio, tmp_path):
    target = made_target(tmp_path)

    for step in range(MOST_STEPS):
        killed = killed_before(step, make, lio, target)

        await lio.exporter.unexport(target.iqn)

        assert ours() == []
        if not killed:
            return
    pytest.fail("the export never came to its end")


@pytest.mark.long
async def test_an_unexport_killed_at_any_step_is_finished_by_the_next(lio, tmp_path):
    target = made_target(tmp_path)

    for step in range(MOST_STEPS):
        await lio.exporter.export(target)
        killed = killed_before(step, unmake, target)
        assert (await admits(lio, target)) == (step == 0)

        await lio.exporter.unexport(target.iqn)

        assert ours() == []
        if not killed:
            assert step > 5
            return
    pytest.fail("the unexport never came to its end")


@pytest.mark.long
async def test_the_next_epoch_is_exported_beside_a_target_whose_removal_was_killed(lio, tmp_path):
    old = made_target(tmp_path)
    new = made_target(tmp_path, epoch=2, uuid=old.uuid)

    for step in range(MOST_STEPS):
        await lio.exporter.export(old)
        killed = killed_before(step, unmake, old)

        await lio.exporter.export(new)

        assert await asyncio.to_thread(lio.identity, new) == (new.uuid, MIB)
        await lio.exporter.unexport(old.iqn)
        assert await asyncio.to_thread(lio.identity, new) == (new.uuid, MIB)
        await lio.exporter.unexport(new.iqn)
        assert ours() == []
        if not killed:
            return
    pytest.fail("the unexport never came to its end")


@pytest.mark.long
async def test_a_worker_that_is_killed_is_replaced_and_the_request_repeated(lio, tmp_path):
    targets = [made_target(tmp_path, f"one-{number}") for number in range(60)]
    await lio.exporter.export(targets[0])
    exporting = asyncio.gather(*(lio.exporter.export(target) for target in targets), return_exceptions=True)

    for many in (5, 25, 45):
        while len(configfs.listed("nas1")) < many:
            await asyncio.sleep(0.005)
        for pid in workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    assert await exporting == [None] * 60
    assert set(await lio.exporter.exports()) == {target.iqn for target in targets}
    assert await asyncio.to_thread(lio.identity, targets[7]) == (targets[7].uuid, MIB)


AGENT = """
import asyncio, sys, msgspec
from onelun.model import Portal, Target
from onelun.nas.exporters.lio.exporter import LioExporter
address, port, targets = msgspec.json.decode(sys.stdin.buffer.read(), type=tuple[str, int, list[Target]])
async def main():
    exporter = LioExporter("nas1", Portal(address, port))
    while True:
        await asyncio.gather(*(exporter.export(target) for target in targets))
        print("made", flush=True)
        await asyncio.gather(*(exporter.unexport(target.iqn) for target in targets))
asyncio.run(main())
"""


@pytest.mark.parametrize("after_s", [0.0, 0.3, 0.7, 1.3])
@pytest.mark.long
async def test_a_killed_agent_takes_its_workers_along_and_the_next_one_finds_what_it_left(lio, tmp_path, after_s):
    targets = [made_target(tmp_path, f"one-{number}") for number in range(10)]
    before = set(workers())
    agent = subprocess.Popen([sys.executable, "-c", AGENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: ASYNC220 it is over in no time
    agent.stdin.write(msgspec.json.encode(("127.0.0.1", lio.port, targets)))
    agent.stdin.close()
    assert await asyncio.to_thread(agent.stdout.readline) == b"made\n"
    await asyncio.sleep(after_s)

    agent.kill()
    agent.wait(10)

    # One that was just starting looks for its agent first, and ends without having touched anything.
    until = time.monotonic() + 30
    while set(workers()) - before:
        assert time.monotonic() < until
        await asyncio.sleep(0.02)
    await asyncio.gather(*(lio.exporter.export(target) for target in targets))
    assert set(await lio.exporter.exports()) == {target.iqn for target in targets}
    assert await asyncio.to_thread(lio.identity, targets[3]) == (targets[3].uuid, MIB)
    await asyncio.gather(*(lio.exporter.unexport(target.iqn) for target in targets))
    assert ours() == []


def workers():
    """The worker processes that run, ours and our children's."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if b"onelun.nas.exporters.lio.worker" in words:
                found.append(int(name))
    return found
