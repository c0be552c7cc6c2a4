"""How often LVM is asked, and that whatever others do to a volume group is seen at once all the same."""

import asyncio
import os
from functools import partial

import msgspec
import pytest
from tests.support.pools import AGENT, CLOUD, MIB, cloned, new, ready
from tests.support.pools_lvm import Lvm, lvm, output
from tests.support.requires import guest

from onelun import command
from onelun.errors import CommandFailed, Conflict
from onelun.model import Attachment

pytestmark = guest("lvm")

OTHER_AGENT = new()
LVM = ("lvs", "vgs", "pvs", "lvcreate", "lvchange", "lvremove", "lvextend", "lvrename")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A volume group."""
    with Lvm(tmp_path_factory.mktemp("place")) as made:
        yield made


@pytest.fixture
def asked(monkeypatch):
    """The commands of LVM that ran."""
    ran, run = [], command.run

    async def running(*argv, **options):
        if argv[0] in LVM:
            ran.append(argv[0])
        return await run(*argv, **options)

    monkeypatch.setattr(command, "run", running)
    return ran


def lv_of(volume):
    return f"onelun-{volume.uuid}"


def given(epoch, volume):
    """To be recorded: node1 has it."""
    mine = Attachment("node1", "iqn.2026-11.io.onelun.host:node1", epoch)
    return msgspec.structs.replace(volume, attachments=(mine,), connected=True, last_epoch=epoch)


def taken(volume):
    """To be recorded: nobody has it."""
    return msgspec.structs.replace(volume, attachments=())


async def attach(pool, volume, epoch=1):
    """As the NAS does it."""
    found = await pool.backend.find(volume.name)
    await pool.backend.record(found.name, found.uuid, partial(given, epoch))
    return await pool.backend.activate(found)


async def detach(pool, volume):
    """As the NAS does it."""
    recorded = await pool.backend.record(volume.name, volume.uuid, taken, idle=True)
    await pool.backend.deactivate(recorded)
    return recorded


# How often


async def test_an_attachment_is_two_changes_and_its_end_is_one(pool, asked):
    volume = await ready(pool, "one-1")
    asked.clear()

    path = await attach(pool, volume)
    assert asked == ["lvchange", "lvchange"]
    asked.clear()
    recorded = await detach(pool, volume)

    assert asked == ["lvchange"]
    assert not os.path.exists(path)
    # What was known without LVM is what LVM tells another one.
    (listed,) = await pool.again().volumes()
    assert listed == recorded == await pool.backend.find("one-1")
    assert listed.attachments == ()
    assert listed.last_epoch == 1


async def test_a_clone_is_made_and_shown_by_two_changes(pool, asked):
    volume = await ready(pool, "one-1")
    await pool.backend.volumes()
    asked.clear()

    clone = await cloned(pool, volume, "one-1-3-0")

    assert asked == ["lvcreate", "lvchange"]
    assert await pool.backend.find("one-1-3-0") == clone
    assert {each.uuid: each for each in await pool.again().volumes()} == {
        each.uuid: each for each in await pool.backend.volumes()
    }


async def test_a_listing_asks_lvm_once_and_not_again_while_nothing_changes(pool, asked):
    await ready(pool, "one-1")
    backend = pool.again()
    asked.clear()

    assert len(await backend.volumes()) == 1
    first = asked.copy()
    asked.clear()
    assert len(await backend.volumes()) == 1
    assert (await backend.find("one-1")).name == "one-1"

    # Once in its life it asks which disks to look at, too.
    assert first == ["lvs", "vgs"]
    assert asked == []


# What others do


async def test_what_another_writes_is_seen_at_once(pool):
    volume = await ready(pool, "one-1")
    other = pool.again()
    await other.open(AGENT, CLOUD)
    assert (await pool.backend.find("one-1")).attachments == ()

    await other.record(volume.name, volume.uuid, partial(given, 1))

    assert (await pool.backend.find("one-1")).last_epoch == 1
    lvm("lvremove", f"{pool.vg}/{lv_of(volume)}")
    assert await pool.backend.find("one-1") is None


async def test_a_pool_that_another_agent_took_is_changed_no_more(pool):
    volume = await ready(pool, "one-1")
    await pool.again().take(OTHER_AGENT)

    with pytest.raises(Conflict):
        await pool.backend.record(volume.name, volume.uuid, partial(given, 1))

    assert (await pool.again().find("one-1")).attachments == ()


async def test_what_another_does_in_the_middle_of_a_change_is_seen(pool):
    volume, other = await ready(pool, "one-1"), await ready(pool, "one-2")

    def meanwhile(now):
        # After the agent has looked, before it changes.
        lvm("lvremove", f"{pool.vg}/{lv_of(other)}")
        return given(1, now)

    await pool.backend.record(volume.name, volume.uuid, meanwhile)

    assert [each.name for each in await pool.backend.volumes()] == ["one-1"]
    assert len((await pool.backend.find("one-1")).attachments) == 1


async def test_what_another_does_while_a_clone_is_made_is_seen(pool, monkeypatch):
    volume, other = await ready(pool, "one-1"), await ready(pool, "one-2")
    run = command.run

    async def meanwhile(*argv, **options):
        if argv[0] == "lvcreate":
            await asyncio.to_thread(lvm, "lvremove", f"{pool.vg}/{lv_of(other)}")
        return await run(*argv, **options)

    monkeypatch.setattr(command, "run", meanwhile)
    await cloned(pool, volume, "one-1-3-0")

    assert sorted(each.name for each in await pool.backend.volumes()) == ["one-1", "one-1-3-0"]


async def test_a_change_that_failed_is_not_believed(pool, monkeypatch):
    volume = await ready(pool, "one-1")
    run = command.run

    async def fails(*argv, **options):
        if argv[0] == "lvchange":
            raise CommandFailed("lvchange did not end within 100 s")
        return await run(*argv, **options)

    with monkeypatch.context() as patched:
        patched.setattr(command, "run", fails)
        with pytest.raises(CommandFailed):
            await pool.backend.record(volume.name, volume.uuid, partial(given, 1))

    assert (await pool.backend.find("one-1")).attachments == ()


async def test_a_disk_more_and_an_area_less_hide_no_change(pool, place, tmp_path, asked):
    volume = await ready(pool, "one-1")
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(64 * MIB)
    loop = output("losetup", "--find", "--show", str(disk)).strip()
    try:
        lvm("vgextend", pool.vg, loop)
        lvm("pvchange", "--metadataignore", "y", place.loop)
        # Now the disk that the agent knows of says nothing any more.
        assert (await pool.backend.find("one-1")).attachments == ()
        await pool.again().open(AGENT, CLOUD)
        other = pool.again()
        await other.open(AGENT, CLOUD)

        await other.record(volume.name, volume.uuid, partial(given, 1))

        assert len((await pool.backend.find("one-1")).attachments) == 1
    finally:
        lvm("pvchange", "--metadataignore", "n", place.loop)
        lvm("vgreduce", pool.vg, loop)
        lvm("pvremove", loop)
        output("losetup", "--detach", loop)
    assert len((await pool.backend.find("one-1")).attachments) == 1


# An open device, and numbers


async def test_an_open_device_stays_and_its_attachment_goes(pool):
    volume = await ready(pool, "one-1")
    path = await attach(pool, volume)
    descriptor = os.open(path, os.O_RDWR)

    try:
        recorded = await detach(pool, volume)

        assert recorded.attachments == ()
        assert os.pwrite(descriptor, b"x" * 512, 0) == 512
    finally:
        os.close(descriptor)
    assert (await pool.again().find("one-1")).attachments == ()


async def test_what_a_new_clone_takes_is_told(pool):
    volume = await ready(pool, "one-1", size=4 * MIB, content=os.urandom(2 * MIB))
    clone = await cloned(pool, volume, "one-1-3-0")

    assert await pool.backend.usage(clone) == await pool.backend.usage(volume) >= 2 * MIB
