"""Initiators without a compute agent: the call and the dictionary of OpenStack's drivers."""

import pytest

from onelun.errors import Conflict, NotFound, Rejected
from onelun.model import Kind, Owner
from onelun.rpc.message import CreateZvol, InitializeConnection, ListZvols, MapZvol, TerminateConnection, UnmapZvol

from .conftest import CLOUD, MIB

ANN = {"initiator": "iqn.1993-08.org.debian:01:ann", "ip": "192.0.2.7", "host": "ann"}
BOB = {"initiator": "iqn.1993-08.org.debian:01:bob", "ip": "192.0.2.8", "host": "bob"}


@pytest.fixture
async def volume(nas):
    return await nas.ask(CreateZvol(zvol="vol-1", zpool="tank", size_bytes=MIB, owner=Owner(kind=Kind.PLAIN)))


async def test_the_documented_dictionary_is_returned(nas, volume):
    reply = await nas.ask(InitializeConnection(zvol="vol-1", connector=ANN))

    assert reply.driver_volume_type == "iscsi"
    (iqn,) = await nas.exporter.exports()
    secret = reply.data.pop("auth_password")
    assert reply.data == {
        "target_discovered": False,
        "target_iqn": iqn,
        "target_portal": "127.0.0.1:3260",
        "target_lun": nas.exporter.lun,
        "volume_id": volume.uuid,
        "auth_method": "CHAP",
        "auth_username": iqn.removeprefix("iqn.2026-11.io.onelun."),
        "access_mode": "rw",
        "encrypted": False,
        "qos_specs": None,
    }
    nas.exporter.log_in(iqn, ANN["initiator"], secret)


async def test_a_repeat_gives_the_same_and_no_host_is_asked(nas, volume):
    first = await nas.ask(InitializeConnection(zvol="vol-1", connector=ANN))

    again = await nas.ask(InitializeConnection(zvol="vol-1", connector=ANN))

    assert again == first
    assert all(not node.asked for node in nas.nodes.by_name.values())


async def test_only_the_connected_initiator_may_log_in(nas, volume):
    data = (await nas.ask(InitializeConnection(zvol="vol-1", connector=ANN))).data

    with pytest.raises(Rejected):
        nas.exporter.log_in(data["target_iqn"], BOB["initiator"], data["auth_password"])


@pytest.mark.parametrize(
    "request_",
    [TerminateConnection(zvol="vol-1", connector=ANN), UnmapZvol(zvol="vol-1")],
    ids=["terminate", "unmap"],
)
async def test_terminating_ends_the_session_and_the_right_to_log_in(nas, volume, request_):
    data = (await nas.ask(InitializeConnection(zvol="vol-1", connector=ANN))).data
    nas.exporter.log_in(data["target_iqn"], ANN["initiator"], data["auth_password"])

    await nas.ask(request_)
    await nas.ask(request_)

    assert await nas.exporter.exports() == {}
    with pytest.raises(NotFound):
        nas.exporter.log_in(data["target_iqn"], ANN["initiator"], data["auth_password"])


async def test_an_epoch_is_never_given_again(nas, volume):
    first = (await nas.ask(InitializeConnection(zvol="vol-1", connector=ANN))).data
    await nas.ask(TerminateConnection(zvol="vol-1", connector=ANN))

    second = (await nas.ask(InitializeConnection(zvol="vol-1", connector=ANN))).data

    assert second["target_iqn"] != first["target_iqn"]
    assert second["auth_password"] != first["auth_password"]


async def test_a_volume_that_another_initiator_or_host_has_is_refused(nas, volume):
    await nas.ask(InitializeConnection(zvol="vol-1", connector=ANN))

    with pytest.raises(Conflict, match=r"mapped to connector:iqn\.1993-08\.org\.debian:01:ann"):
        await nas.ask(InitializeConnection(zvol="vol-1", connector=BOB))
    with pytest.raises(Conflict, match="unmap it there first"):
        await nas.ask(MapZvol(zvol="vol-1", remotehost="node1"))


async def test_several_may_read(nas, volume):
    ann = await nas.ask(InitializeConnection(zvol="vol-1", connector=ANN, readonly=True))

    bob = await nas.ask(InitializeConnection(zvol="vol-1", connector=BOB, readonly=True))

    assert ann.data["access_mode"] == bob.data["access_mode"] == "ro"
    assert ann.data["target_iqn"] != bob.data["target_iqn"]


@pytest.mark.parametrize("connector", [{}, {"initiator": None}, {"initiator": "ann"}, {"host": "ann"}])
async def test_a_connector_without_an_initiator_is_refused(nas, volume, connector):
    with pytest.raises(Rejected):
        await nas.ask(InitializeConnection(zvol="vol-1", connector=connector))

    assert await nas.exporter.exports() == {}


async def test_a_clouds_volume_is_not_given_to_a_bare_initiator(nas):
    owner = Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=1)
    await nas.ask(CreateZvol(zvol="one-1", zpool="tank", size_bytes=MIB, owner=owner))

    with pytest.raises(Conflict, match="OpenNebula"):
        await nas.ask(InitializeConnection(zvol="one-1", connector=ANN))


async def test_a_connection_is_there_again_after_a_restart(nas, volume, begin, parts):
    data = (await nas.ask(InitializeConnection(zvol="vol-1", connector=ANN))).data
    parts.exporter._kept.clear()

    nas = await begin()

    parts.exporter.log_in(data["target_iqn"], ANN["initiator"], data["auth_password"])
    (row,) = (await nas.ask(ListZvols(name="vol-1"))).body[0]["attachments"]
    assert row["remotehost"] == f"connector:{ANN['initiator']}"


async def test_terminating_an_absent_volume_or_connection_succeeds(nas, volume):
    await nas.ask(TerminateConnection(zvol="nothing", connector=ANN))
    await nas.ask(TerminateConnection(zvol="vol-1", connector=ANN))
