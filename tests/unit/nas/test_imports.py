"""Imports: building volumes that their builder writes over iSCSI."""

import pytest

from onelun.errors import Conflict, NotFound, OutOfSpace, Rejected
from onelun.model import Kind, Owner, State
from onelun.rpc.message import AbortImport, CreateZvol, FinishImport, ImportZvol, ListZvols, RenewImport

from .conftest import CLOUD, MIB

BUILDER = "iqn.2026-11.io.onelun.host:frontend"
OWNER = Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=5, regtime=1)


def _begin(owner=OWNER, size=MIB, initiator=BUILDER):
    return ImportZvol(zvol="one-5", zpool="tank", size_bytes=size, owner=owner, initiator=initiator)


async def test_an_import_is_exported_to_its_builder_and_not_listed(nas):
    begun = await nas.ask(_begin())

    exported = (await nas.exporter.exports())[begun.iqn]

    assert exported.initiators == (BUILDER,)
    assert (await nas.ask(ListZvols())).body == []


async def test_a_finished_import_is_a_ready_volume_without_a_target(nas):
    begun = await nas.ask(_begin())

    finished = await nas.ask(FinishImport(zpool="tank", uuid=begun.uuid))

    assert finished.size_bytes == MIB
    assert await nas.exporter.exports() == {}
    volume = (await nas.volumes())["one-5"]
    assert (volume.uuid, volume.owner, volume.attachments) == (begun.uuid, OWNER, ())


async def test_finishing_again_succeeds(nas):
    begun = await nas.ask(_begin())
    first = await nas.ask(FinishImport(zpool="tank", uuid=begun.uuid))

    assert await nas.ask(FinishImport(zpool="tank", uuid=begun.uuid)) == first


async def test_an_aborted_import_leaves_nothing_and_aborting_again_succeeds(nas):
    begun = await nas.ask(_begin())

    await nas.ask(AbortImport(zpool="tank", uuid=begun.uuid))
    await nas.ask(AbortImport(zpool="tank", uuid=begun.uuid))

    assert await nas.exporter.exports() == {}
    assert await nas.backend.volumes() == []


async def test_aborting_after_the_finish_touches_nothing(nas):
    begun = await nas.ask(_begin())
    await nas.ask(FinishImport(zpool="tank", uuid=begun.uuid))

    await nas.ask(AbortImport(zpool="tank", uuid=begun.uuid))

    assert list(await nas.volumes()) == ["one-5"]


async def test_an_import_begun_anew_ends_the_earlier_one(nas):
    first = await nas.ask(_begin())

    second = await nas.ask(_begin())

    assert list(await nas.exporter.exports()) == [second.iqn]
    with pytest.raises(NotFound, match="has ended"):
        await nas.ask(FinishImport(zpool="tank", uuid=first.uuid))
    with pytest.raises(NotFound, match="has ended"):
        await nas.ask(RenewImport(zpool="tank", uuid=first.uuid))


async def test_an_import_never_takes_the_name_of_another_image(nas):
    await nas.ask(CreateZvol(zvol="one-5", zpool="tank", size_bytes=MIB, owner=Owner(kind=Kind.PLAIN)))

    with pytest.raises(Conflict):
        await nas.ask(_begin())


async def test_an_import_of_the_same_image_replaces_the_one_that_no_host_ever_had(nas):
    first = await nas.ask(_begin())
    await nas.ask(FinishImport(zpool="tank", uuid=first.uuid))
    second = await nas.ask(_begin())

    await nas.ask(FinishImport(zpool="tank", uuid=second.uuid))

    assert (await nas.volumes())["one-5"].uuid == second.uuid


async def test_an_unrenewed_lease_ends_the_import(begin):
    nas = await begin(lease_s=0.0)
    begun = await nas.ask(_begin())

    await nas.agent._leases.end_overdue()

    assert await nas.backend.volumes() == []
    with pytest.raises(NotFound):
        await nas.ask(RenewImport(zpool="tank", uuid=begun.uuid))


async def test_a_renewed_lease_keeps_the_import(nas):
    begun = await nas.ask(_begin())

    await nas.ask(RenewImport(zpool="tank", uuid=begun.uuid))
    await nas.agent._leases.end_overdue()

    assert [v.state for v in await nas.backend.volumes()] == [State.BUILDING]


async def test_imports_together_may_not_promise_more_than_the_pool_has(nas):
    total = (await nas.backend.capacity()).total_bytes

    with pytest.raises(OutOfSpace):
        await nas.ask(_begin(size=total))

    assert await nas.backend.volumes() == []
    assert nas.catalogue.imports() == []


async def test_an_initiator_that_is_none_is_rejected(nas):
    with pytest.raises(Rejected, match="initiator"):
        await nas.ask(_begin(initiator="node1; rm -rf /"))
