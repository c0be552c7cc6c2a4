"""What a restarted NAS agent finds, and how it and its hosts agree again."""

import asyncio
import os

import msgspec
import pytest

from onelun.errors import CommandFailed, Conflict, NoReply, NotFound, Stalled, Unreachable
from onelun.model import Kind, Owner, State
from onelun.nas.agent import NasAgent
from onelun.nas.backends.memory.backend import MemoryBackend
from onelun.nas.identity import Identity
from onelun.rpc.message import (
    CreateZvol,
    FindPlacements,
    Hello,
    ImportZvol,
    MapZvol,
    RenewImport,
    SetZvol,
    SyncZvols,
    UnmapZvol,
)

from .conftest import CLOUD, MIB

PATH = "/var/lib/one/datastores/0/3/disk.0"
IMAGE = Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=1)


async def _mapped(nas):
    await nas.ask(CreateZvol(zvol="one-1", zpool="tank", size_bytes=MIB, owner=IMAGE))
    return await nas.ask(MapZvol(zvol="one-1", zpool="tank", remotehost="node1", cloud=CLOUD, vm=3, disk=0, path=PATH))


def _unmap(**more):
    return UnmapZvol(zvol="one-1", zpool="tank", remotehost="node1", cloud=CLOUD, vm=3, disk=0, path=PATH, **more)


async def test_what_was_exported_is_exported_again_under_its_epoch(begin, parts):
    nas = await begin()
    mapped = await _mapped(nas)
    for iqn in await parts.exporter.exports():
        await parts.exporter.unexport(iqn)

    again = await begin()

    assert [iqn.rpartition(".e")[2] for iqn in await again.exporter.exports()] == [str(mapped.epoch)]


async def test_a_target_that_stayed_is_left_as_it_is(begin, parts):
    nas = await begin()
    await _mapped(nas)
    before = await parts.exporter.exports()

    again = await begin()

    assert await again.exporter.exports() == before


async def test_a_target_that_nobody_knows_is_removed_unless_a_host_is_logged_in(begin, parts):
    nas = await begin()
    await _mapped(nas)
    (row,) = nas.catalogue.attachments()
    nas.catalogue.drop(row)
    volume = (await nas.volumes())["one-1"]
    await parts.backend.record(volume.name, volume.uuid, lambda now: msgspec.structs.replace(now, attachments=()))
    parts.exporter.log_in(row.iqn, row.initiator, Identity(parts.state).secret_of(row.iqn))

    kept = await begin()
    assert list(await kept.exporter.exports()) == [row.iqn]

    parts.exporter.log_out(row.iqn, row.initiator)
    again = await begin()
    assert await again.exporter.exports() == {}


async def test_a_building_volume_without_an_import_is_destroyed(begin, parts):
    await begin()
    await parts.backend.create("one-8", "7e1f3b8e-3c7e-4d46-9f0a-0b8de4b7a8f1", MIB, IMAGE)

    await begin()

    assert await parts.backend.volumes() == []


async def test_an_import_survives_with_a_new_lease(begin, parts):
    nas = await begin()
    begun = await nas.ask(
        ImportZvol(zvol="one-5", zpool="tank", size_bytes=MIB, owner=IMAGE, initiator="iqn.2026-11.io.onelun.host:fe")
    )
    await parts.exporter.unexport(begun.iqn)

    again = await begin()

    assert list(await again.exporter.exports()) == [begun.iqn]
    await again.ask(RenewImport(zpool="tank", uuid=begun.uuid))


async def test_a_volume_that_was_being_deleted_is_deleted(begin, parts):
    nas = await begin()
    await nas.ask(CreateZvol(zvol="one-1", zpool="tank", size_bytes=MIB, owner=IMAGE))
    volume = (await nas.volumes())["one-1"]
    await parts.backend.record(volume.name, volume.uuid, lambda now: msgspec.structs.replace(now, state=State.DELETING))

    await begin()

    assert await parts.backend.volumes() == []


async def test_targets_are_back_before_what_was_cut_off_is_removed(begin, parts, monkeypatch):
    nas = await begin()
    mapped = await _mapped(nas)
    await parts.backend.create("one-8", "7e1f3b8e-3c7e-4d46-9f0a-0b8de4b7a8f1", MIB, IMAGE)
    for iqn in await parts.exporter.exports():
        await parts.exporter.unexport(iqn)
    destroy, exported = parts.backend.destroy, []

    async def looking(volume):
        exported.append([iqn.rpartition(".e")[2] for iqn in await parts.exporter.exports()])
        await destroy(volume)

    monkeypatch.setattr(parts.backend, "destroy", looking)

    await begin()

    assert exported == [[str(mapped.epoch)]]


async def test_an_attachment_in_a_pool_that_is_configured_no_more_refuses_the_start(begin, parts):
    parts.others["lake"] = MemoryBackend("lake")
    nas = await begin()
    await nas.ask(CreateZvol(zvol="one-2", zpool="lake", size_bytes=MIB, owner=IMAGE))
    await nas.ask(MapZvol(zvol="one-2", zpool="lake", remotehost="node1", cloud=CLOUD))
    parts.others.clear()

    with pytest.raises(NotFound, match="there is no pool lake"):
        await begin()

    assert len(await parts.exporter.exports()) == 1


async def test_a_cautious_start_leaves_even_what_was_being_deleted(begin, parts):
    nas = await begin()
    await nas.ask(CreateZvol(zvol="one-1", zpool="tank", size_bytes=MIB, owner=IMAGE))
    volume = (await nas.volumes())["one-1"]
    await parts.backend.record(volume.name, volume.uuid, lambda now: msgspec.structs.replace(now, state=State.DELETING))
    os.unlink(os.path.join(parts.state, "catalogue.sqlite"))

    await begin()

    assert [v.state for v in await parts.backend.volumes()] == [State.DELETING]


async def test_an_attachment_cut_off_before_the_volume_knew_it_is_forgotten(begin, parts):
    nas = await begin()
    await _mapped(nas)
    volume = (await nas.volumes())["one-1"]
    await parts.backend.record(volume.name, volume.uuid, lambda now: msgspec.structs.replace(now, attachments=()))

    again = await begin()

    assert again.catalogue.attachments() == []
    assert await again.exporter.exports() == {}


async def test_a_lost_catalogue_means_a_cautious_start(begin, parts):
    nas = await begin()
    mapped = await _mapped(nas)
    await parts.backend.create("one-8", "7e1f3b8e-3c7e-4d46-9f0a-0b8de4b7a8f1", MIB, IMAGE)
    before = await parts.exporter.exports()
    os.unlink(os.path.join(parts.state, "catalogue.sqlite"))

    again = await begin()

    assert await parts.exporter.exports() == before
    assert {v.name for v in await parts.backend.volumes()} == {"one-1", "one-8"}
    assert [(r.host, r.epoch, r.state) for r in again.catalogue.attachments()] == [("node1", mapped.epoch, "unknown")]


async def test_epochs_are_never_used_twice_even_without_the_catalogue(begin, parts):
    nas = await begin()
    first = await _mapped(nas)
    await nas.ask(_unmap())
    os.unlink(os.path.join(parts.state, "catalogue.sqlite"))

    again = await begin()
    second = await again.ask(
        MapZvol(zvol="one-1", zpool="tank", remotehost="node1", cloud=CLOUD, vm=3, disk=0, path=PATH)
    )

    assert second.epoch > first.epoch


async def test_a_second_agent_of_one_state_directory_is_refused(begin, parts):
    await begin()

    with pytest.raises(Conflict, match="another agent holds"):
        NasAgent("nas1", parts.state, {"tank": parts.backend}, parts.exporter, parts.nodes, parts.limits)


async def test_a_second_agent_of_the_name_with_a_state_and_a_pool_of_its_own_is_refused_until_the_first_ends(
    begin, parts, tmp_path
):
    parts.exporter.lock = str(tmp_path / "run" / "nas1.lock")
    nas = await begin()
    await _mapped(nas)
    offered = await parts.exporter.exports()
    assert [one.sessions for one in offered.values()] == [()]
    another = (str(tmp_path / "other"), {"spare": MemoryBackend("spare")}, parts.exporter, parts.nodes, parts.limits)

    for _ in range(2):
        with pytest.raises(Conflict, match=r"another agent holds .*/nas1\.lock: one NAS agent called nas1"):
            NasAgent("nas1", *another)

    assert await parts.exporter.exports() == offered
    nas.agent.close()
    NasAgent("nas1", *another).close()
    await begin()


async def test_a_pool_of_another_agent_is_refused(begin, parts, tmp_path):
    await begin()
    other = NasAgent(
        "nas2", str(tmp_path / "other"), {"tank": parts.backend}, parts.exporter, parts.nodes, parts.limits
    )

    with pytest.raises(Conflict):
        await other.start()
    other.close()


async def test_a_host_that_is_back_gets_its_attachments_and_drops_the_rest(begin):
    nas = await begin()
    await _mapped(nas)
    node = nas.nodes["node1"]
    held = dict(node.connected)
    node.connected = {"iqn.2026-11.io.onelun.nas1:tank.one-9.e7": None}
    node.instance = "after a reboot"

    await nas.agent.rounds._probe()

    assert list(node.connected) == list(held)


async def test_a_host_that_did_not_change_is_not_told_again(begin):
    nas = await begin()
    await _mapped(nas)
    await nas.agent.rounds._probe()
    asked = len(nas.nodes["node1"].asked)

    await nas.agent.rounds._probe()

    assert [type(r).__name__ for r in nas.nodes["node1"].asked[asked:]] == ["Hello", "ListDev"]


async def test_a_start_completes_a_target_that_was_left_half_made(begin, parts):
    nas = await begin()
    await _mapped(nas)
    (kept,) = parts.exporter._kept.values()
    whole, kept.target = kept.target, msgspec.structs.replace(kept.target, secret="half-made-secret")

    await begin()

    (kept,) = parts.exporter._kept.values()
    assert kept.target == whole


async def test_a_debt_is_paid_when_the_host_is_back(begin):
    nas = await begin()
    await _mapped(nas)
    nas.nodes["node1"].present = False
    await nas.ask(_unmap(force=True))

    await nas.agent.rounds._probe()
    assert len(nas.catalogue.debts()) == 1
    nas.nodes["node1"].present = True
    await nas.agent.rounds._probe()

    assert nas.catalogue.debts() == []
    assert nas.nodes["node1"].connected == {}
    (synced,) = [request for request in nas.nodes["node1"].asked if isinstance(request, SyncZvols)]
    assert len(synced.fenced) == 1


async def test_a_host_that_is_given_the_volume_again_pays_its_debt_first(begin):
    nas = await begin()
    await _mapped(nas)
    nas.nodes["node1"].present = False
    await nas.ask(_unmap(force=True))
    nas.nodes["node1"].present = True

    await nas.ask(MapZvol(zvol="one-1", zpool="tank", remotehost="node1", cloud=CLOUD))

    assert nas.catalogue.debts() == []
    (iqn,) = nas.nodes["node1"].connected
    assert iqn in await nas.exporter.exports()


async def test_half_of_a_target_is_finished_by_the_next_round(begin, monkeypatch):
    nas = await begin()
    await _mapped(nas)
    ((iqn, exported),) = (await nas.exporter.exports()).items()
    export, made = nas.exporter.export, []

    async def half():
        return {iqn: exported if made else msgspec.structs.replace(exported, initiators=())}

    async def finish(target):
        await export(target)
        made.append(target.iqn)

    monkeypatch.setattr(nas.exporter, "exports", half)
    monkeypatch.setattr(nas.exporter, "export", finish)

    assert [await nas.agent.rounds._startup.export_missing() for _ in range(2)] == [1, 0]
    assert made == [iqn]


async def test_an_unmap_that_a_silent_host_left_open_is_asked_again_by_the_round(begin):
    nas = await begin()
    await _mapped(nas)
    nas.nodes["node1"].present = False
    with pytest.raises(Unreachable):
        await nas.ask(_unmap())
    nas.nodes["node1"].present = True

    await nas.agent.rounds._probe()

    assert [row.state for row in nas.catalogue.attachments()] == ["attached"]


async def test_a_map_that_the_target_daemon_cut_off_is_taken_back_by_a_round_and_never_comes_to_be(begin, monkeypatch):
    nas = await begin()
    await nas.ask(CreateZvol(zvol="one-1", zpool="tank", size_bytes=MIB, owner=IMAGE))

    async def down(*_):
        raise Unreachable("tgtd does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(nas.exporter, "export", down)
        patched.setattr(nas.exporter, "unexport", down)
        with pytest.raises(Unreachable, match="tgtd"):
            await nas.ask(MapZvol(zvol="one-1", zpool="tank", remotehost="node1", cloud=CLOUD))
        assert [row.state for row in nas.catalogue.attachments()] == ["detaching"]

    await nas.agent.rounds._probe()

    assert nas.catalogue.attachments() == []
    assert nas.nodes["node1"].connected == {}
    await nas.ask(MapZvol(zvol="one-1", zpool="tank", remotehost="node2", cloud=CLOUD))


async def test_a_map_that_a_restart_cut_off_is_undone_on_the_host_too(begin, parts):
    nas = await begin()
    await _mapped(nas)
    (row,) = nas.catalogue.attachments()
    nas.catalogue.put(msgspec.structs.replace(row, state="attaching"))

    again = await begin()
    await again.agent.rounds._probe()

    assert again.catalogue.attachments() == []
    assert parts.nodes["node1"].connected == {}
    assert await parts.exporter.exports() == {}


async def test_a_volume_that_cannot_be_written_to_is_not_offered(nas, monkeypatch):
    await nas.ask(CreateZvol(zvol="one-1", zpool="tank", size_bytes=MIB, owner=IMAGE))

    async def broken(name, uuid, change, **_):
        volume = await nas.backend.find_uuid(uuid)
        if change(volume) != volume:
            raise CommandFailed("the disk is broken")
        return volume

    with monkeypatch.context() as patched:
        patched.setattr(nas.backend, "record", broken)
        with pytest.raises(CommandFailed, match="broken"):
            await nas.ask(MapZvol(zvol="one-1", zpool="tank", remotehost="node1", cloud=CLOUD))

    assert nas.catalogue.attachments() == []
    assert await nas.exporter.exports() == {}


async def test_cancelling_a_repeated_map_leaves_the_attachment_alone(nas):
    mapped = await _mapped(nas)
    nas.nodes["node1"].go_on = asyncio.Event()
    nas.nodes["node1"].asked.clear()
    again = asyncio.create_task(
        nas.ask(MapZvol(zvol="one-1", zpool="tank", remotehost="node1", cloud=CLOUD, vm=3, disk=0, path=PATH))
    )
    await nas.nodes["node1"].has_been_asked(SetZvol)

    again.cancel()
    with pytest.raises(asyncio.CancelledError):
        await again

    assert [(row.epoch, row.state) for row in nas.catalogue.attachments()] == [(mapped.epoch, "attached")]
    assert len(nas.nodes["node1"].connected) == 1


async def test_a_cancelled_unmap_ends_its_offer_before_anybody_else_has_the_volume(nas, monkeypatch):
    await _mapped(nas)
    reached, go_on = asyncio.Event(), asyncio.Event()
    unexport = nas.exporter.unexport

    async def slow(iqn):
        reached.set()
        await go_on.wait()
        await unexport(iqn)

    monkeypatch.setattr(nas.exporter, "unexport", slow)
    leaving = asyncio.create_task(nas.ask(_unmap()))
    await reached.wait()

    leaving.cancel()
    other = asyncio.create_task(nas.ask(MapZvol(zvol="one-1", zpool="tank", remotehost="node2", cloud=CLOUD)))
    await asyncio.sleep(0.05)
    assert [row.host for row in nas.catalogue.attachments()] == ["node1"]
    go_on.set()
    await asyncio.wait({leaving, other})

    assert leaving.cancelled()
    assert [row.host for row in nas.catalogue.attachments()] == ["node2"]
    assert [one.host for one in (await nas.backend.find("one-1")).attachments] == ["node2"]


async def test_a_pool_whose_filesystem_is_not_mounted_is_not_taken_for_a_new_one(begin, parts):
    nas = await begin()
    await _mapped(nas)
    parts.backend = MemoryBackend("tank")

    with pytest.raises(Conflict, match="mount its filesystem"):
        await begin()

    assert len(await parts.exporter.exports()) == 1


async def test_a_catalogue_of_yesterday_never_gives_a_volume_to_the_host_that_had_it_then(begin, parts):
    nas = await begin()
    await _mapped(nas)
    (yesterday,) = nas.catalogue.attachments()
    await nas.ask(_unmap(keep_link=True))
    today = await nas.ask(MapZvol(zvol="one-1", zpool="tank", remotehost="node2", cloud=CLOUD, vm=3, disk=0, path=PATH))
    nas.catalogue.drop(*nas.catalogue.attachments())
    nas.catalogue.put(yesterday)
    nas.catalogue.set_meta("serial", "0")

    again = await begin()
    await again.agent.rounds._probe()

    assert [(row.host, row.epoch) for row in again.catalogue.attachments()] == [("node2", today.epoch)]
    assert len(await parts.exporter.exports()) == 1
    assert parts.nodes["node1"].connected == {}
    assert len(parts.nodes["node2"].connected) == 1


async def test_a_catalogue_of_an_hour_ago_is_noticed_though_the_agent_was_not_restarted_since(begin, parts):
    """Its serial number is the pool's; by its placements the disk is on the host that has it no more."""
    nas = await begin()
    await _mapped(nas)
    (then,), (placed,) = nas.catalogue.attachments(), nas.catalogue.placements()
    await nas.ask(_unmap(keep_link=True))
    await nas.ask(MapZvol(zvol="one-1", zpool="tank", remotehost="node2", cloud=CLOUD, vm=3, disk=0, path=PATH))
    await parts.backend.create("one-8", "7e1f3b8e-3c7e-4d46-9f0a-0b8de4b7a8f1", MIB, IMAGE)
    nas.catalogue.change(drop=nas.catalogue.attachments(), put=[then, placed])

    again = await begin()
    await again.agent.rounds._probe()

    assert {v.name for v in await parts.backend.volumes()} == {"one-1", "one-8"}
    assert [(row.host, row.state) for row in again.catalogue.attachments()] == [("node2", "attached")]
    await again.ask(UnmapZvol(zvol="one-1", zpool="tank", cloud=CLOUD, vm=3, disk=0, path=PATH))
    assert [node.connected for node in parts.nodes.by_name.values()] == [{}, {}]
    assert await parts.exporter.exports() == {}


async def test_an_adopted_attachment_keeps_the_secret_that_its_host_has(begin, parts):
    nas = await begin()
    await _mapped(nas)
    (held,) = nas.nodes["node1"].connected.values()
    os.unlink(os.path.join(parts.state, "catalogue.sqlite"))
    for iqn in await parts.exporter.exports():
        await parts.exporter.unexport(iqn)

    again = await begin()

    parts.exporter.log_in(held.target, held.initiator, held.secret)
    assert list(await again.exporter.exports()) == [held.target]


async def test_a_device_that_died_on_its_host_is_noticed_and_made_anew(begin):
    nas = await begin()
    await _mapped(nas)
    await nas.agent.rounds._probe()
    nas.nodes["node1"].dead = True

    await nas.agent.rounds._probe()

    assert nas.nodes["node1"].dead is False


async def test_a_target_daemon_that_does_not_answer_leaves_nothing_to_complete_later(begin, monkeypatch):
    nas = await begin()
    await nas.ask(CreateZvol(zvol="one-1", zpool="tank", size_bytes=MIB, owner=IMAGE))

    async def silent(*_):
        raise Stalled("tgtd took a request and did not answer")

    with monkeypatch.context() as patched:
        patched.setattr(nas.exporter, "export", silent)
        with pytest.raises(Stalled):
            await nas.ask(MapZvol(zvol="one-1", zpool="tank", remotehost="node1", cloud=CLOUD, vm=3, disk=0, path=PATH))

    await nas.agent.rounds._probe()

    assert nas.catalogue.attachments() == []
    assert nas.catalogue.placements() == []
    assert nas.nodes["node1"].connected == {}


async def test_a_host_that_does_not_even_say_hello_was_asked_for_nothing(begin, monkeypatch):
    nas = await begin()
    await nas.ask(CreateZvol(zvol="one-1", zpool="tank", size_bytes=MIB, owner=IMAGE))
    ask = nas.nodes.ask

    async def mute(node, request, **how):
        if isinstance(request, Hello):
            raise NoReply("node1 did not answer hello in time")
        return await ask(node, request, **how)

    monkeypatch.setattr(nas.nodes, "ask", mute)
    with pytest.raises(Unreachable, match="nothing was done"):
        await nas.ask(MapZvol(zvol="one-1", zpool="tank", remotehost="node1", cloud=CLOUD, vm=3, disk=0, path=PATH))

    assert nas.catalogue.attachments() == []
    assert nas.catalogue.placements() == []


async def test_a_silent_hosts_disk_is_found_by_its_placement(begin):
    nas = await begin()
    await nas.ask(CreateZvol(zvol="one-1", zpool="tank", size_bytes=MIB, owner=IMAGE))
    nas.nodes["node1"].silent = True
    with pytest.raises(NoReply):
        await nas.ask(MapZvol(zvol="one-1", zpool="tank", remotehost="node1", cloud=CLOUD, vm=3, disk=0, path=PATH))

    found = (await nas.ask(FindPlacements(cloud=CLOUD, vm=3, disk=0))).body

    assert [(p["zvol"], p["host"]) for p in found] == [("one-1", "node1")]


async def test_a_disk_without_a_placement_is_found_by_what_its_volume_says(begin):
    nas = await begin()
    own = Owner(kind=Kind.DISK, cloud=CLOUD, image_id=1, vm_id=3, disk_id=0)
    await nas.ask(CreateZvol(zvol="one-1-3-0", zpool="tank", size_bytes=MIB, owner=own))

    found = (await nas.ask(FindPlacements(cloud=CLOUD, vm=3, disk=0))).body

    assert [(p["zvol"], p["kind"]) for p in found] == [("one-1-3-0", "disk")]
    assert (await nas.ask(FindPlacements(cloud=CLOUD, vm=3, disk=1))).body == []


async def test_a_lost_catalogue_learns_from_the_hosts_which_disk_is_which(begin, parts):
    nas = await begin()
    await _mapped(nas)
    os.unlink(os.path.join(parts.state, "catalogue.sqlite"))

    again = await begin()
    await again.agent.rounds._probe()
    await again.ask(UnmapZvol(zvol="one-1", zpool="tank", cloud=CLOUD, vm=3, disk=0, path=PATH))

    assert parts.nodes["node1"].connected == {}
    assert again.catalogue.attachments() == []
