"""What only the exporter `lio` can meet: other people's targets, half a target, a portal that is none, block devices."""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import socket
from pathlib import Path

import msgspec
import pytest
from tests.contract.test_lio_interrupted import made_target
from tests.support.requires import guest
from tests.support.targets import RefusedError
from tests.support.tgt import free_port

from onelun.errors import CommandFailed, Conflict, NotFound, Rejected, Unreachable
from onelun.model import Portal
from onelun.nas.exporters.lio import configfs
from onelun.nas.exporters.lio.exporter import LioExporter

pytestmark = [guest("lio"), pytest.mark.timeout(300)]
MIB = 1 << 20
FOREIGN = "iqn.2003-01.org.example:disk.one-1.e1"


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


@pytest.fixture
def block(lio, tmp_path):
    """A block device of 32 MiB that may become 64 MiB long, and the target that offers it."""
    from tests.support.targets_lio import Block

    device = Block(tmp_path, "one-1", 32 * MIB, room=64 * MIB)
    yield device, msgspec.structs.replace(made_target(tmp_path), device=device.path, size_bytes=32 * MIB)
    lio.clear()
    device.close()


@pytest.fixture
def foreign(lio, tmp_path):
    """Somebody else's target and backstores, made as an operator would with targetcli."""
    from rtslib_fb import LUN, TPG, FileIOStorageObject
    from rtslib_fb import Target as Theirs
    from rtslib_fb.fabric import ISCSIFabricModule

    # Without it rtslib does not work for them.
    Path("/etc/target").mkdir(exist_ok=True)
    (tmp_path / "theirs").write_bytes(bytes(MIB))
    unused = FileIOStorageObject("onelun_nas1_unused", str(tmp_path / "theirs"), MIB)
    used = FileIOStorageObject("one-1", str(tmp_path / "theirs"), MIB)
    target = Theirs(ISCSIFabricModule(), FOREIGN)
    LUN(TPG(target, 1), 0, used)
    other_nas = Theirs(ISCSIFabricModule(), "iqn.2026-11.io.onelun.nas10:tank.one-1.e1")
    yield [target.path, used.path, unused.path, other_nas.path]
    for made in (target, other_nas, used, unused):
        made.delete()


def group(target):
    return f"{configfs.ISCSI}/{target.iqn}/tpgt_1"


def backstore(target):
    return configfs.backstore_at(configfs.link(f"{group(target)}/lun/lun_0"))


async def identity(lio, target):
    return await asyncio.to_thread(lio.identity, target)


# Others


async def test_other_peoples_targets_and_backstores_are_neither_listed_nor_touched(lio, foreign, tmp_path):
    target = made_target(tmp_path)

    await lio.exporter.export(target)
    assert set(await lio.exporter.exports()) == {target.iqn}
    await lio.exporter.unexport(target.iqn)

    assert await lio.exporter.exports() == {}
    assert all(os.path.isdir(path) for path in foreign)


async def test_nothing_is_saved_for_the_next_boot_and_what_an_operator_saved_of_ours_is_named(lio, tmp_path):
    saved = Path("/etc/target/saveconfig.json")
    target = made_target(tmp_path)

    await lio.exporter.export(target)
    assert not saved.exists()
    assert await lio.exporter.check() == []

    saved.parent.mkdir(exist_ok=True)
    saved.write_text(json.dumps({"targets": [{"wwn": target.iqn}]}))
    (sentence,) = await lio.exporter.check()
    saved.unlink()
    assert str(saved) in sentence
    assert "remove" in sentence


async def test_where_lio_keeps_its_own_files_is_left_to_the_machine(lio, tmp_path):
    before = configfs.read("/sys/kernel/config/target/dbroot")

    await lio.exporter.export(made_target(tmp_path))

    assert configfs.read("/sys/kernel/config/target/dbroot") == before


# Half a target, and one that somebody changed


@pytest.mark.parametrize(
    "harm",
    [
        lambda target: configfs.write(f"{group(target)}/enable", "0"),
        lambda target: os.rmdir(f"{group(target)}/np/{os.listdir(group(target) + '/np')[0]}"),
        lambda target: configfs.write(f"{node(target)}/auth/password", "something-else"),
        lambda target: configfs.write(f"{node(target)}/auth/userid", "somebody"),
        lambda target: unlink(f"{node(target)}/lun_0"),
        lambda target: (unlink(f"{node(target)}/lun_0"), os.rmdir(f"{node(target)}/lun_0")),
        lambda target: (unlink(f"{node(target)}/lun_0"), unlink(f"{group(target)}/lun/lun_0")),
        lambda target: configfs.write(f"{node(target)}/lun_0/write_protect", "1"),
        lambda target: configfs.write(f"{group(target)}/attrib/authentication", "0"),
        lambda target: configfs.write(f"{group(target)}/attrib/generate_node_acls", "1"),
    ],
    ids=["disabled", "portal", "secret", "user", "link", "mapped", "lun", "protected", "open", "demo"],
)
async def test_a_target_that_lacks_something_is_completed(lio, tmp_path, harm):
    target = made_target(tmp_path)
    await lio.exporter.export(target)
    harm(target)

    await lio.exporter.export(target)

    await asyncio.to_thread(lio.write, target, 0, b"\x07" * 512)
    for changes in (
        {"secret": ""},
        {"secret": secrets.token_hex(8)},
        {"initiator": "iqn.2026-11.io.onelun.host:node2"},
    ):
        with pytest.raises(RefusedError):
            await identity(lio, msgspec.structs.replace(target, **changes))


def node(target):
    return f"{group(target)}/acls/{target.initiator}"


def unlink(directory):
    for name in os.listdir(directory):
        if os.path.islink(f"{directory}/{name}"):
            os.unlink(f"{directory}/{name}")


async def test_a_target_that_is_not_enabled_is_told_to_admit_nobody(lio, tmp_path):
    target = made_target(tmp_path)
    await lio.exporter.export(target)
    configfs.write(f"{group(target)}/enable", "0")

    assert (await lio.exporter.exports())[target.iqn].initiators == ()


async def test_a_volume_is_not_exported_from_two_devices_at_once(lio, tmp_path):
    target = made_target(tmp_path)
    copy = made_target(tmp_path, "one-2", uuid=target.uuid)
    await lio.exporter.export(target)

    with pytest.raises(Conflict):
        await lio.exporter.export(copy)

    await lio.exporter.unexport(target.iqn)
    await lio.exporter.export(copy)
    assert await identity(lio, copy) == (target.uuid, MIB)


async def test_a_device_that_is_in_use_otherwise_is_refused_and_nothing_is_left(lio, block):
    from tests.support.targets_lio import ours

    device, target = block
    descriptor = os.open(device.path, os.O_RDONLY | os.O_EXCL)
    try:
        with pytest.raises(CommandFailed, match=device.path):
            await lio.exporter.export(target)
    finally:
        os.close(descriptor)

    assert ours() == []


# The portal


async def test_a_portal_on_another_machines_address_is_named_and_nothing_is_left(lio, tmp_path):
    from tests.support.targets_lio import ours

    exporter = lio.again("198.18.99.9")

    with pytest.raises(Unreachable, match=r"does not have the portal's address 198\.18\.99\.9"):
        await exporter.export(made_target(tmp_path))

    assert ours() == []
    (sentence,) = await exporter.check()
    assert "198.18.99.9" in sentence


async def test_a_port_that_another_program_has_is_named_and_nothing_is_left(lio, tmp_path):
    from tests.support.targets_lio import ours

    with socket.create_server(("127.0.0.1", lio.port)):
        with pytest.raises(Unreachable, match="another program listens"):
            await lio.exporter.export(made_target(tmp_path))
        assert ours() == []
        (sentence,) = await lio.exporter.check()
    assert "another program listens" in sentence


async def test_nothing_is_in_the_way_of_lio_that_listens_already(lio, tmp_path):
    await lio.exporter.export(made_target(tmp_path))

    assert await lio.exporter.check() == []


async def test_an_ipv6_portal_is_listened_at(lio, tmp_path):
    target = made_target(tmp_path)

    await lio.again("::1").export(target)

    assert os.listdir(f"{group(target)}/np") == [f"[::1]:{lio.port}"]
    with socket.create_connection(("::1", lio.port), 5):
        pass


async def test_an_idle_target_follows_a_portal_that_was_changed(lio, tmp_path):
    target = made_target(tmp_path)
    await lio.exporter.export(target)
    lio.port = free_port()

    await lio.again().export(target)

    assert os.listdir(f"{group(target)}/np") == [f"127.0.0.1:{lio.port}"]
    assert await identity(lio, target) == (target.uuid, MIB)


async def test_an_initiator_name_that_lio_does_not_take_is_rejected(lio, tmp_path):
    target = msgspec.structs.replace(made_target(tmp_path), initiator="iqn.2026-11.test:node1")

    with pytest.raises(Rejected, match="two labels"):
        await lio.exporter.export(target)


# Block devices


async def test_a_block_device_is_offered_with_its_identity_and_its_cache_as_it_is(lio, block):
    device, target = block
    await lio.exporter.export(target)

    assert await identity(lio, target) == (target.uuid, 32 * MIB)
    await asyncio.to_thread(lio.write, target, 4096, b"\x07" * 512)

    assert backstore(target).plugin == "iblock"
    assert device.file.read_bytes()[4096:4608] == b"\x07" * 512
    queue = f"/sys/block/{os.path.basename(os.path.realpath(device.path))}/queue"
    offered = configfs.read(f"{backstore(target).path}/attrib/emulate_fua_write")
    assert offered == configfs.read(f"{queue}/fua")


async def test_a_discard_reaches_the_storage_below_a_block_device(lio, block):
    device, target = block
    device.file.write_bytes(b"\x07" * 32 * MIB)
    await lio.exporter.export(target)

    await asyncio.to_thread(lio.discard, target, 0, 16 * MIB)

    assert os.stat(device.file).st_blocks * 512 <= 16 * MIB


async def test_a_device_that_has_grown_is_longer_for_a_session_that_is_logged_in(lio, block):
    device, target = block
    await lio.exporter.export(target)
    session = await asyncio.to_thread(lio.login, target)
    device.grow(64 * MIB)
    longer = msgspec.structs.replace(target, size_bytes=64 * MIB)

    await lio.exporter.grow(longer)

    await asyncio.to_thread(session.write, 0, 9, 512)
    assert await identity(lio, longer) == (target.uuid, 64 * MIB)
    await lio.exporter.export(longer)
    assert (await lio.exporter.exports())[target.iqn].sessions


async def test_growing_an_absent_target_is_not_found(lio, block):
    with pytest.raises(NotFound):
        await lio.exporter.grow(block[1])


async def test_reservations_and_copies_between_units_are_off(lio, block):
    await lio.exporter.export(block[1])

    attributes = f"{backstore(block[1]).path}/attrib"
    assert [configfs.read(f"{attributes}/{name}") for name in ("emulate_pr", "emulate_3pc")] == ["0", "0"]


# Secrets


async def test_a_secret_is_in_no_log_and_no_argument(lio, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    target = made_target(tmp_path)

    await lio.exporter.export(target)
    with pytest.raises(Conflict) as caught:
        await lio.exporter.export(msgspec.structs.replace(target, initiator="iqn.2026-11.io.onelun.host:node2"))

    arguments = b""
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            arguments += Path(f"/proc/{name}/cmdline").read_bytes()
    assert target.secret not in caplog.text + str(caught.value) + arguments.decode(errors="replace")


async def test_without_modules_that_can_be_loaded_the_check_says_so(lio):
    lio.stop()

    found = await LioExporter("nas1", Portal("127.0.0.1", lio.port)).check()

    assert any("iscsi_target_mod" in sentence for sentence in found)
    assert not configfs.is_loaded()
