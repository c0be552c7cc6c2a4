"""What rows of `lvs` mean: volumes, snapshots, what an interruption left, and what is not ours."""

import msgspec
import pytest

from onelun.errors import CommandFailed
from onelun.model import Kind, Owner, Snapshot, State, Volume
from onelun.nas.backends.lvm.listing import NEW, WAS, Reader, Row, snapshot_lv, volume_lv
from onelun.nas.backends.lvm.tags import (
    PoolFacts,
    Replacement,
    SnapshotFacts,
    VolumeFacts,
    pool_tags,
    snapshot_tags,
    volume_tags,
)

MIB = 1 << 20
ONE = "0b6a4e0e-57a1-4d7c-9a64-4d9d5f1d7a10"
TWO = "1c7b5f1f-68b2-4e8d-8b75-5eae602e8b21"
POOL = Row("pool", str(64 * MIB), ",".join(pool_tags(PoolFacts(owner=ONE, serial=3))), "")


def volume(uuid=ONE, name="one-1", state=State.READY):
    return Volume("tank", name, uuid, MIB, state, Owner(kind=Kind.PLAIN))


def row(lv, tags, pool="pool"):
    return Row(lv, str(MIB), ",".join(tags), pool)


def volume_row(one, **facts):
    return row(volume_lv(one.uuid), volume_tags(VolumeFacts(one, **facts)))


def snapshot_row(name, at, of=ONE):
    return row(snapshot_lv(of, name), snapshot_tags(SnapshotFacts(of, Snapshot(name, at, MIB))))


def listing(*rows):
    return Reader("tank", "vg", "pool").listing([*rows, POOL])


def test_an_empty_pool_has_its_own_facts():
    found = listing()

    assert found.pool == PoolFacts(owner=ONE, serial=3)
    assert (found.volumes, found.snapshots, found.beside) == ({}, {}, {})


def test_a_pool_that_is_not_there_is_no_empty_pool():
    with pytest.raises(CommandFailed, match="no thin pool pool"):
        Reader("tank", "vg", "pool").listing([])


def test_a_pool_whose_facts_cannot_be_read_is_no_empty_pool():
    with pytest.raises(CommandFailed, match="correct the tags of vg/pool"):
        Reader("tank", "vg", "pool").listing([Row("pool", "1", "onelun.serial=x", "")])


def test_visible_volumes_are_found_by_name_and_others_are_not():
    found = listing(volume_row(volume()), volume_row(volume(TWO, "one-2", State.BUILDING)))

    assert found.visible("one-1").volume == volume()
    assert found.visible("one-2") is None
    assert found.volumes[TWO].volume.state is State.BUILDING


def test_the_number_in_the_pools_metadata_is_that_of_the_row_that_counts():
    one, reader = volume_row(volume()), Reader("tank", "vg", "pool")
    reader.listing([POOL, msgspec.structs.replace(one, thin_id="3")])

    # As after a revert: all is as before, but for the number.
    found = reader.listing([POOL, msgspec.structs.replace(one, thin_id="5"), snapshot_row("s1", 1.0)])

    assert found.volumes[ONE].number == "5"
    assert found.snapshot(ONE, "s1").number == ""


@pytest.mark.parametrize(
    "foreign",
    [
        row("home", []),
        row("onelun-home", volume_tags(VolumeFacts(volume()))),
        row(volume_lv(ONE), volume_tags(VolumeFacts(volume())), pool="other"),
        row(volume_lv(ONE), volume_tags(VolumeFacts(volume())), pool=""),
        row(volume_lv(ONE), ["backup"]),
        row(volume_lv(TWO), volume_tags(VolumeFacts(volume()))),
        row(snapshot_lv(ONE, "s1"), volume_tags(VolumeFacts(volume()))),
        row(snapshot_lv(ONE, "s1"), snapshot_tags(SnapshotFacts(TWO, Snapshot("s1", 1.0, MIB)))),
    ],
)
def test_what_is_not_ours_is_left_alone(foreign):
    found = listing(foreign)

    assert (found.volumes, found.snapshots, found.beside) == ({}, {}, {})


def test_what_looks_like_ours_and_is_not_is_named_once(caplog):
    reader = Reader("tank", "vg", "pool")

    for _ in range(3):
        reader.listing([POOL, row(volume_lv(ONE), ["backup"])])

    assert [record.getMessage() for record in caplog.records if volume_lv(ONE) in record.getMessage()] == [
        f"pool pool=tank lv=vg/{volume_lv(ONE)} left alone: its tags are of None"
    ]


def test_snapshots_are_their_volumes_the_oldest_first():
    found = listing(volume_row(volume()), snapshot_row("b", 1.0), snapshot_row("a", 2.0), snapshot_row("c", 0.5, TWO))

    assert [kept.facts.snapshot.name for kept in found.snapshots[ONE]] == ["b", "a"]
    assert found.snapshot(ONE, "a").lv == snapshot_lv(ONE, "a")
    assert found.snapshot(ONE, "c") is None


def test_a_replaced_volume_is_in_the_trash_before_it_says_so_itself():
    new = volume_row(volume(TWO), replaces=Replacement(ONE, 7.0))

    found = listing(volume_row(volume()), new)

    assert found.visible("one-1").volume.uuid == TWO
    assert found.volumes[ONE].volume.state is State.TRASH
    assert found.volumes[ONE].facts.trashed_at == 7.0


def test_a_building_volume_replaces_nothing_yet():
    building = volume_row(volume(TWO, state=State.BUILDING), replaces=Replacement(ONE, 7.0))

    assert listing(volume_row(volume()), building).visible("one-1").volume.uuid == ONE


def test_a_volume_put_into_the_trash_later_keeps_its_own_time():
    trashed = msgspec.structs.replace(volume(), state=State.TRASH)

    found = listing(volume_row(trashed, trashed_at=9.0), volume_row(volume(TWO), replaces=Replacement(ONE, 7.0)))

    assert found.volumes[ONE].facts.trashed_at == 9.0


@pytest.mark.parametrize(
    ("there", "shown"),
    [(("", NEW), ""), ((NEW, WAS), NEW), (("", WAS), ""), ((WAS,), WAS), (("",), "")],
)
def test_a_volume_is_there_at_each_step_of_a_revert(there, shown):
    tags = volume_tags(VolumeFacts(volume()))

    found = listing(*(row(volume_lv(ONE) + suffix, tags) for suffix in reversed(there)))

    assert found.visible("one-1").lv == volume_lv(ONE) + shown
    assert list(found.beside.get(ONE, [])) == [volume_lv(ONE) + suffix for suffix in there if suffix]


def test_all_of_a_volume_ends_with_its_data():
    tags = volume_tags(VolumeFacts(volume()))
    rows = [row(volume_lv(ONE) + WAS, tags), volume_row(volume()), snapshot_row("a", 1.0), snapshot_row("b", 2.0)]

    lvs = listing(*rows, snapshot_row("a", 1.0, TWO)).all_of(ONE)

    assert lvs[-1] == volume_lv(ONE)
    assert sorted(lvs) == sorted(row.lv_name for row in rows)
    assert listing(snapshot_row("a", 1.0, TWO)).all_of(TWO) == [snapshot_lv(TWO, "a")]


@pytest.mark.parametrize("name", ["s" * 63, "a", "a.b-c"])
def test_lvs_have_names_that_lvm_and_the_kernel_take(name):
    # lvm(8): no reserved words. The kernel's names of devices end at 127 characters, with every '-' doubled by LVM.
    lv = snapshot_lv(ONE, name)

    assert not any(word in lv for word in ("_tdata", "_tmeta", "_mlog", "_mimage", "_rimage", "_rmeta", "_vorigin"))
    assert not lv.startswith(("snapshot", "pvmove"))
    assert len("vg-" * 10) + len(lv.replace("-", "--")) <= 127
    assert snapshot_lv(ONE, name) != snapshot_lv(ONE, name + "x")
