"""The order of an attachment's steps, in which nothing is lost whatever fails (seen by the logging double)."""

import asyncio

import pytest
from tests.support import recording

from onelun.errors import CommandFailed, Conflict, NoReply, OnelunError, Unreachable
from onelun.model import Kind, Owner
from onelun.rpc.message import (
    CreateZvol,
    DelZvol,
    InitializeConnection,
    MapZvol,
    ResizeZvol,
    TerminateConnection,
    UnmapZvol,
)

from .conftest import CLOUD, MIB

IMAGE = Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=1)
ANN = {"initiator": "iqn.1993-08.org.debian:01:ann", "ip": "192.0.2.7", "host": "ann"}
ATTACH = ["backend.record", "backend.activate", "exporter.export", "host.set_zvol"]
DETACH = ["host.tear_down", "exporter.unexport", "backend.record", "backend.deactivate"]
STEPS = (*ATTACH, *DETACH, "backend.grow", "exporter.grow", "host.grow_dev", "backend.trash", "backend.destroy")


@pytest.fixture
def log(parts):
    """What the agent does with storage, targets and hosts."""
    log = recording.Log()
    parts.backend = recording.backend(parts.backend, log)
    parts.exporter = recording.exporter(parts.exporter, log)
    parts.nodes = recording.hosts(parts.nodes, log)
    return log


@pytest.fixture
async def nas(log, begin):
    """An agent with one image, and what it did before forgotten."""
    nas = await begin()
    await nas.ask(CreateZvol(zvol="one-1", zpool="tank", size_bytes=MIB, owner=IMAGE))
    log.clear_logs()
    return nas


@pytest.fixture
def map_(nas):
    async def ask(host="node1", **more):
        return await nas.ask(MapZvol(zvol="one-1", remotehost=host, cloud=CLOUD, **more))

    return ask


@pytest.fixture
def unmap(nas):
    async def ask(host="node1", **more):
        return await nas.ask(UnmapZvol(zvol="one-1", remotehost=host, cloud=CLOUD, **more))

    return ask


async def nothing_is_left(nas, host="node1"):
    """No target, no attachment in catalogue and volume, nothing on the host."""
    assert await nas.exporter.exports() == {}
    assert nas.catalogue.attachments() == []
    assert (await nas.backend.find("one-1")).attachments == ()
    assert nas.nodes[host].connected == {}


# Attaching: the intent, the volume itself, the target, the host


async def test_a_volume_is_recorded_before_it_is_exported_before_it_is_connected(nas, log, map_):
    await map_()

    assert log.actions(*STEPS) == ATTACH
    (recorded,) = log.logs_like("backend.record")
    (exported,) = log.logs_like("exporter.export")
    (asked,) = log.logs_like("host.set_zvol", node="node1")
    (attachment,) = recorded["change"](await nas.backend.find("one-1")).attachments
    assert attachment.host == "node1"
    assert exported["target"].iqn == asked["request"].target
    assert exported["target"].iqn.endswith(f".e{attachment.epoch}")


async def test_the_catalogue_knows_the_intent_before_anything_else_does(nas, log, map_):
    log.watch = lambda: [row.state for row in nas.catalogue.attachments()]

    await map_()

    assert {step: log.logs_like(step)[0]["seen"] for step in ATTACH} == {step: ["attaching"] for step in ATTACH}
    assert [row.state for row in nas.catalogue.attachments()] == ["attached"]


async def test_mapping_again_makes_no_second_export(nas, log, map_):
    first = await map_()
    log.clear_logs()

    assert await map_() == first

    assert log.actions(*STEPS) == ["backend.activate", "exporter.export", "host.set_zvol"]
    assert len(await nas.exporter.exports()) == 1


# Detaching: the host, the target, the volume itself, the intent


async def test_a_host_disconnects_before_its_target_goes_before_the_volume_forgets_it(nas, log, map_, unmap):
    await map_()
    log.clear_logs()
    log.watch = lambda: [row.state for row in nas.catalogue.attachments()]

    await unmap()

    assert log.actions(*STEPS) == DETACH
    assert {step: log.logs_like(step)[0]["seen"] for step in DETACH} == {step: ["detaching"] for step in DETACH}
    await nothing_is_left(nas)


@pytest.mark.parametrize("error", [CommandFailed("cannot flush"), Unreachable("gone"), NoReply("silent")])
async def test_what_the_host_has_not_confirmed_stays_exported(nas, log, map_, unmap, error):
    await map_()
    log.clear_logs()
    log.fail("host.tear_down", error)

    with pytest.raises(OnelunError):
        await unmap()

    assert log.actions(*STEPS) == ["host.tear_down"]
    assert len(await nas.exporter.exports()) == 1
    assert len((await nas.backend.find("one-1")).attachments) == 1


async def test_a_fence_takes_the_target_before_the_volume_forgets_and_owes_the_rest(nas, log, map_, unmap):
    await map_()
    nas.nodes["node1"].silent = True
    log.clear_logs()

    reply = await unmap(force=True)

    assert reply.debt
    assert log.actions(*DETACH) == DETACH
    assert [debt.host for debt in nas.catalogue.debts()] == ["node1"]


async def test_unmapping_again_touches_nothing(nas, log, map_, unmap):
    await map_()
    await unmap()
    log.clear_logs()

    await unmap()

    assert log.actions(*STEPS) == []


# Whatever fails on the way, nothing is left


@pytest.mark.parametrize(
    ("step", "after"), [*((step, False) for step in ATTACH), *((step, True) for step in ATTACH[:-1])]
)
async def test_an_attachment_that_fails_at_any_step_leaves_nothing_and_succeeds_when_repeated(
    nas, log, map_, step, after
):
    error = CommandFailed("the disk broke") if not step.startswith("host") else Unreachable("the host went away")
    log.fail(step, error, after=after)

    with pytest.raises(type(error)):
        await map_()

    await nothing_is_left(nas)
    undone = log.actions(*STEPS)[ATTACH.index(step) + 1 :]
    assert undone[0] == "exporter.unexport"
    assert "host.tear_down" not in undone
    await map_()
    assert len(await nas.exporter.exports()) == 1


@pytest.mark.parametrize("step", DETACH[1:])
async def test_a_detachment_that_fails_on_its_way_goes_on_when_repeated(nas, log, map_, unmap, step):
    await map_()
    log.clear_logs()
    log.fail(step, CommandFailed("the disk broke"))

    with pytest.raises(CommandFailed):
        await unmap()
    await unmap()

    await nothing_is_left(nas)


async def test_of_two_hosts_that_ask_at_once_exactly_one_gets_the_volume(nas, log, map_):
    outcomes = await asyncio.gather(map_("node1"), map_("node2"), return_exceptions=True)

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "ZvolMapped"]
    assert len(log.logs_like("exporter.export")) == len(await nas.exporter.exports()) == 1


async def test_the_second_host_of_a_migration_takes_nothing_from_the_first(nas, log, map_, unmap):
    await map_("node1")
    log.clear_logs()

    await map_("node2", beside="node1")
    assert log.actions(*STEPS) == ATTACH

    log.clear_logs()
    await unmap("node1")
    assert log.actions(*STEPS) == DETACH[:3]
    assert [target.initiators for target in (await nas.exporter.exports()).values()] == [
        (nas.nodes["node2"].initiator,)
    ]


# The rest of a volume's life


async def test_a_volume_grows_before_its_target_before_its_host(nas, log, map_):
    await map_()
    log.clear_logs()

    await nas.ask(ResizeZvol(zvol="one-1", size_bytes=2 * MIB))

    assert log.actions("backend.grow", "exporter.grow", "host.grow_dev") == [
        "backend.grow",
        "exporter.grow",
        "host.grow_dev",
    ]


async def test_an_attached_volume_is_not_deleted(nas, log, map_):
    await map_()
    log.clear_logs()

    with pytest.raises(Conflict):
        await nas.ask(DelZvol(zvol="one-1", owner=IMAGE))

    assert log.actions(*STEPS) == []


async def test_a_connection_without_an_agent_is_recorded_before_it_is_exported(nas, log):
    await nas.ask(CreateZvol(zvol="vol-1", zpool="tank", size_bytes=MIB, owner=Owner(kind=Kind.PLAIN)))
    log.clear_logs()
    await nas.ask(InitializeConnection(zvol="vol-1", connector=ANN))
    assert log.actions(*STEPS) == ATTACH[:3]

    log.clear_logs()
    await nas.ask(TerminateConnection(zvol="vol-1", connector=ANN))
    assert log.actions(*STEPS) == DETACH[1:]


async def test_a_start_exports_what_it_can_when_one_target_cannot_be_made(nas, log, begin, parts, caplog):
    for number in (2, 3):
        await nas.ask(CreateZvol(zvol=f"one-{number}", zpool="tank", size_bytes=MIB, owner=IMAGE))
    for number in (1, 2, 3):
        await nas.ask(MapZvol(zvol=f"one-{number}", remotehost="node1", cloud=CLOUD))
    parts.exporter.inner._kept.clear()
    log.fail("exporter.export", CommandFailed("the disk broke"))

    again = await begin()

    assert len(await again.exporter.exports()) == 2
    assert len(again.catalogue.attachments()) == 3
    assert "the disk broke" in caplog.text
    await again.agent.rounds._startup.export_missing()
    assert len(await again.exporter.exports()) == 3
