"""A compute agent on real devices: who may open them, what its end and its death leave, and what a dead path does."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.blocks import content, daemons, killed, leftovers, read, write
from tests.support.iscsi import MIB, TgtLab, initiator
from tests.support.iscsi import lab as make_lab

from onelun.compute.agent import ComputeAgent, run_dir
from onelun.compute.connectors.base import Export
from onelun.compute.connectors.userspace.connector import UserspaceConnector
from onelun.config import Compute, Limits
from onelun.errors import Busy
from onelun.rpc.job import Job
from onelun.rpc.message import GrowDev, Held, ListDev, Request, SetZvol, SyncZvols, TearDown, name_of

OWNER = (1234, 1235)


class Node:
    """node1 of a lab, with everything of its agent below the lab's directory."""

    def __init__(self, lab: TgtLab) -> None:
        self.lab = lab
        self.config = Compute(
            name="node1",
            state=f"{lab.directory}/state",
            run=f"{lab.directory}/node1",
            devices=f"{lab.directory}/dev",
            datastores=f"{lab.directory}/datastores",
            owner=f"{OWNER[0]}:{OWNER[1]}",
            initiator=initiator("node1"),
        )
        os.mkdir(self.config.datastores)
        os.chown(self.config.datastores, *OWNER)
        os.chmod(lab.directory, 0o755)
        self.agent = self.new_agent()

    def new_agent(self) -> ComputeAgent:
        connector = UserspaceConnector(f"{run_dir(self.config)}/targets", node="node1")
        return ComputeAgent(self.config, Limits(), connector)

    async def ask(self, request: Request) -> Any:
        job = Job("id", action=name_of(type(request)), caller=None, limit_s=60)
        return await self.agent.handlers()[type(request)](request, job)

    def request(self, export: Export, **other: Any) -> SetZvol:
        return SetZvol(
            target=export.iqn,
            nas="nas1",
            address=export.portal.address,
            port=export.portal.port,
            initiator=export.initiator,
            user=export.user,
            secret=export.secret,
            zpool="tank",
            zvol="one-1",
            uuid=export.uuid,
            size_bytes=export.size_bytes,
            readonly=export.readonly,
            link=self.disk,
            **other,
        )

    @property
    def disk(self) -> str:
        return f"{self.config.datastores}/103/5/disk.0"


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    with make_lab(TgtLab) as lab:
        assert isinstance(lab, TgtLab)
        one = Node(lab)
        await one.agent.start()
        yield one
        for row in (await one.ask(ListDev())).body:
            await one.ask(TearDown(target=row["target"], force=True))
        one.agent.close()
        assert not daemons(lab, "qemu-storage-daemon")
        assert [line for line in leftovers(lab) if line != "compute"] == []


async def test_the_owner_reads_and_writes_the_disk_through_its_link(node: Node) -> None:
    export = node.lab.offer("one-1", "node1")

    reply = await node.ask(node.request(export))

    status = os.stat(reply.bdev)
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (*OWNER, 0o660)
    assert os.lstat(node.disk).st_uid == OWNER[0]
    done = as_owner("dd", "if=/dev/urandom", f"of={node.disk}", "bs=64k", "count=4", "conv=notrunc,fsync")
    assert done.returncode == 0, done.stderr
    assert content(node.lab.backing(export))[: 256 << 10] == read(reply.bdev, 256 << 10) != bytes(256 << 10)


async def test_a_readonly_disk_is_only_read(node: Node) -> None:
    export = node.lab.offer("one-1", "node1", readonly=True)

    reply = await node.ask(node.request(export))

    assert stat.S_IMODE(os.stat(reply.bdev).st_mode) == 0o440
    assert as_owner("dd", f"if={node.disk}", "of=/dev/null", "bs=64k", "count=1").returncode == 0
    assert as_owner("dd", "if=/dev/zero", f"of={node.disk}", "bs=64k", "count=1", "conv=notrunc").returncode != 0


async def test_a_loop_node_is_roots_again_when_the_device_goes(node: Node) -> None:
    device = (await node.ask(node.request(node.lab.offer("one-1", "node1")))).bdev
    assert os.stat(device).st_uid == OWNER[0]

    await node.ask(TearDown(target=node.lab.offer("one-1", "node1").iqn))

    assert os.stat(device).st_uid == 0
    assert stat.S_IMODE(os.stat(device).st_mode) & 0o007 == 0


async def test_a_grown_disk_is_its_owners_still(node: Node) -> None:
    export = node.lab.offer("one-1", "node1")
    await node.ask(node.request(export))
    node.lab.grow(export, 32 * MIB)

    device = (await node.ask(GrowDev(target=export.iqn, size_bytes=32 * MIB))).bdev

    assert os.path.samefile(node.disk, device)
    assert os.stat(device).st_uid == OWNER[0]
    done = as_owner("dd", "if=/dev/urandom", f"of={node.disk}", "bs=1M", "count=1", "seek=31", "conv=notrunc,fsync")
    assert done.returncode == 0, done.stderr
    assert content(node.lab.backing(export))[31 * MIB :] == read(device, MIB, 31 * MIB) != bytes(MIB)


async def test_a_busy_device_keeps_its_name_its_link_and_its_owner(node: Node) -> None:
    export = node.lab.offer("one-1", "node1")
    device = (await node.ask(node.request(export))).bdev
    holder = os.open(node.disk, os.O_RDWR)

    with pytest.raises(Busy, match=rf"process {os.getpid()}"):
        await node.ask(TearDown(target=export.iqn))

    os.close(holder)
    assert os.path.samefile(node.disk, device)
    assert os.stat(device).st_uid == OWNER[0]
    await node.ask(TearDown(target=export.iqn))
    assert not os.path.lexists(node.disk)


async def test_a_nas_has_a_killed_data_path_made_anew(node: Node) -> None:
    export = node.lab.offer("one-1", "node1")
    request = node.request(export)
    await node.ask(request)
    await killed(node.lab, "nbdfuse")
    fields = {name: getattr(request, name) for name in ("target", "address", "port", "initiator", "user", "secret")}

    held = {**fields, "zpool": "tank", "zvol": "one-1", "uuid": export.uuid, "size_bytes": export.size_bytes}
    reply = await node.ask(SyncZvols(nas="nas1", held=(Held(**held),)))

    assert (reply.connected, reply.failed) == ((export.iqn,), {})
    write(node.disk, b"n" * 4096)
    assert content(node.lab.backing(export))[:4096] == b"n" * 4096


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_the_end_of_an_agents_process_interrupts_no_io(node: Node, number: signal.Signals) -> None:
    export = node.lab.offer("one-1", "node1")
    node.agent.close()
    agent = start_agent(node.config.run)
    device = await asyncio.to_thread(connect_by, agent, export)

    agent.send_signal(number)
    await asyncio.to_thread(agent.communicate, timeout=60)

    write(device, b"k" * 4096)
    assert content(node.lab.backing(export))[:4096] == b"k" * 4096
    await node.agent.start()
    assert [(row["bdev"], row["alive"]) for row in (await node.ask(ListDev())).body] == [(device, True)]


_AGENT = """
import asyncio, signal, sys
from onelun.compute.connectors.base import Export
from onelun.compute.connectors.userspace.connector import UserspaceConnector
from onelun.model import Portal

async def main():
    iqn, address, port, initiator, user, secret = sys.stdin.readline().split()
    portal = Portal(address, int(port))
    connector = UserspaceConnector(sys.argv[1] + "/compute/targets", node="node1")
    print(await connector.connect(Export(iqn, portal, initiator, user, secret)), flush=True)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        pass

asyncio.run(main())
"""


def start_agent(run: str) -> subprocess.Popen[str]:
    """A process with a connector of its own."""
    argv = [sys.executable, "-c", _AGENT, run]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def connect_by(agent: subprocess.Popen[str], export: Export) -> str:
    """The device that the process made of the export."""
    assert agent.stdin is not None
    assert agent.stdout is not None
    portal = export.portal
    print(
        export.iqn,
        portal.address,
        portal.port,
        export.initiator,
        export.user,
        export.secret,
        file=agent.stdin,
        flush=True,
    )
    return agent.stdout.readline().strip()


def as_owner(*argv: str) -> subprocess.CompletedProcess[str]:
    """A program of the owner's, as libvirt's QEMU is."""
    return subprocess.run(
        argv, user=OWNER[0], group=OWNER[1], extra_groups=[], capture_output=True, text=True, timeout=120, check=False
    )
