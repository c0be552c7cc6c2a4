"""When LVM is asked for a listing, and when its metadata says that nothing has changed."""

import json

import msgspec
import pytest

from onelun import command
from onelun.calls import Calls
from onelun.errors import CommandFailed
from onelun.model import Attachment, Kind, Owner, State, Volume
from onelun.nas.backends.lvm import areas
from onelun.nas.backends.lvm.backend import LvmBackend
from onelun.nas.backends.lvm.listing import volume_lv
from onelun.nas.backends.lvm.tags import PoolFacts, VolumeFacts, pool_tags, volume_tags
from onelun.nas.backends.lvm.thinpool import Geometry

AGENT = "0b6a4e0e-57a1-4d7c-9a64-4d9d5f1d7a10"
GROUP = "WguBdI-Y9sK-7Yeg-q7QI-lnkf-ll2c-5q3Z8T"
VOLUME = Volume("tank", "one-1", "1c7b5f1f-68b2-4e8d-8b75-5eae602e8b21", 1 << 20, State.READY, Owner(kind=Kind.PLAIN))
MINE = Attachment("node1", "iqn.2026-11.io.onelun.host:node1", 1)


class Group:
    """A volume group: what its tools print and its disks hold."""

    def __init__(self) -> None:
        self.number, self.mark = 7, 1234
        self.disks = ["/dev/sda", "/dev/sdb"]
        # What the areas say, where it is not the number.
        self.held = {}
        self.tags = {
            "pool": set(pool_tags(PoolFacts(owner=AGENT))),
            volume_lv(VOLUME.uuid): set(volume_tags(VolumeFacts(VOLUME))),
        }
        self.asked = []
        self.beside = None

    async def run(self, *argv, check=True, **_):
        self.asked.append(argv[0])
        if argv[0] == "lvchange":
            lv = argv[-1].partition("/")[2]
            for word in argv:
                self.tags[lv] -= {word.removeprefix("--deltag=")}
                self.tags[lv] |= {word.removeprefix("--addtag=")} if word.startswith("--addtag=") else set()
            self.number += 1
            if self.beside is not None:
                self.beside()
            return command.Result(0, "", "")
        state = {"vg_uuid": GROUP, "vg_seqno": str(self.number), "vg_mda_used_count": str(len(self.disks))}
        rows = [
            {"lv_name": lv, "lv_tags": ",".join(sorted(tags)), "lv_size": str(1 << 20), "thin_id": "3", **state}
            | {"pool_lv": "" if lv == "pool" else "pool"}
            for lv, tags in self.tags.items()
        ]
        if argv[0] == "vgs":
            rows = [{"pv_name": disk} for disk in self.disks]
        return command.Result(0, json.dumps({"report": [{"lv": rows}]}), "")

    async def make(self, _, program, *disks, **__):
        held = [self.held.get(disk, [GROUP, self.number, self.mark]) for disk in disks]
        if None in held:
            raise OSError(5, "Input/output error")
        return json.dumps(held)


@pytest.fixture
def group(monkeypatch):
    """A volume group."""
    made = Group()
    monkeypatch.setattr(command, "run", made.run)
    monkeypatch.setattr(Calls, "make", lambda *args, **how: made.make(*args, **how))
    return made


@pytest.fixture
async def backend(group):
    """A backend that is open, and has read the group once."""
    made = LvmBackend("tank", "vg0", "pool")
    made._pool.opened(AGENT, Geometry(1 << 20, 65536))
    assert await made.find("one-1") == VOLUME
    group.asked.clear()
    return made


def attached(volume):
    return msgspec.structs.replace(volume, attachments=(MINE,))


async def test_recording_is_one_command_and_what_it_wrote_is_known(group, backend):
    await backend.record("one-1", VOLUME.uuid, attached)

    found = await backend.find("one-1")

    assert group.asked == ["lvchange"]
    assert found == attached(VOLUME)
    assert volume_tags(VolumeFacts(found)) == group.tags[volume_lv(VOLUME.uuid)]


async def test_what_changed_meanwhile_is_asked_of_lvm(group, backend):
    group.number += 1
    group.tags.pop(volume_lv(VOLUME.uuid))

    assert await backend.find("one-1") is None
    assert group.asked == ["lvs"]


async def test_a_number_that_came_back_with_other_content_is_asked_of_lvm(group, backend):
    # vgcfgrestore.
    group.mark += 1
    group.tags.pop(volume_lv(VOLUME.uuid))

    assert await backend.find("one-1") is None
    assert await backend.find("one-1") is None
    assert group.asked == ["lvs"]


async def test_a_commit_of_another_beside_ours_is_asked_of_lvm(group, backend):
    def beside():
        group.number += 1
        group.tags[volume_lv(VOLUME.uuid)] -= {"onelun.name=one-1"}
        group.tags[volume_lv(VOLUME.uuid)] |= {"onelun.name=one-2"}

    group.beside = beside
    await backend.record("one-1", VOLUME.uuid, attached)

    assert await backend.find("one-1") is None
    assert group.asked == ["lvchange", "lvs"]


@pytest.mark.parametrize(
    "held",
    [
        {"/dev/sdb": [GROUP, 8, 1234]},
        {"/dev/sda": [GROUP, 6, 1234]},
        {"/dev/sda": ["another", 7, 1234]},
        {"/dev/sdb": None},
    ],
    ids=["one newer", "one older", "another group", "one broken"],
)
async def test_disks_that_do_not_agree_are_asked_of_lvm(group, backend, held):
    group.held = held

    await backend.find("one-1")
    await backend.find("one-1")

    assert [tool for tool in group.asked if tool == "lvs"] == ["lvs", "lvs"]


async def test_a_disk_that_the_agent_does_not_know_is_asked_for(group, backend, monkeypatch):
    monkeypatch.setattr(areas, "_AGAIN_S", 0.0)
    group.disks.append("/dev/sdc")
    group.number += 1

    await backend.find("one-1")
    await backend.find("one-1")

    assert group.asked == ["lvs", "vgs"]


async def test_a_group_whose_disks_cannot_be_seen_is_listed_by_lvm_each_time(group):
    group.held = {"/dev/sda": None}
    backend = LvmBackend("tank", "vg0", "pool")

    for _ in range(3):
        assert await backend.find("one-1") == VOLUME

    assert group.asked == ["lvs", "vgs", "lvs", "lvs"]


async def test_what_a_failed_command_may_have_written_is_asked_of_lvm(group, backend, monkeypatch):
    async def dies(*argv, **how):
        await group.run(*argv, **how)
        raise CommandFailed("lvchange did not end within 100 s")

    with monkeypatch.context() as patched:
        patched.setattr(command, "run", dies)
        with pytest.raises(CommandFailed):
            await backend.record("one-1", VOLUME.uuid, attached)

    assert await backend.find("one-1") == attached(VOLUME)
    assert group.asked == ["lvchange", "lvs"]
