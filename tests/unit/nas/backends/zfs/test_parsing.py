"""What the backend `zfs` reads from the tools, and what it writes into properties."""

import uuid as uuids

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelun.command import Result
from onelun.errors import Busy, CommandFailed, NotFound, OutOfSpace, Rejected
from onelun.model import Attachment, Attributes, Capacity, Kind, Owner, Provisioning, State, Volume, Wipe
from onelun.nas.backends.zfs import places
from onelun.nas.backends.zfs.backend import ZfsBackend
from onelun.nas.backends.zfs.building import MIB, rounded
from onelun.nas.backends.zfs.command import Dependents, Missing, Present, Zfs
from onelun.nas.backends.zfs.properties import AGENT, Facts, Value, parse, settings, volume_of
from onelun.nas.backends.zfs.tree import Seen

UUID = "0b6a4e0e-57a1-4d7c-9a64-4d9d5f1d7a10"
zfs = Zfs("tank", "rpool/data/onelun")


def failure(stderr, tool="zfs", verb="destroy"):
    return zfs.failure(tool, verb, Result(1, "", stderr))


# Errors. The texts are what OpenZFS 2.1.11 prints.


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("cannot open 'tank/a': dataset does not exist", Missing),
        ("cannot open 'tank': no such pool", Missing),
        ("could not find any snapshots to destroy; check snapshot names.", Missing),
        ("cannot create 'tank/a': dataset already exists", Present),
        ("cannot rename to 'tank/a': dataset already exists", Present),
        ("cannot destroy 'tank/a': dataset is busy", Busy),
        (
            "cannot destroy 'tank/a': volume has children\nuse '-r' to destroy the following datasets:\ntank/a@s1",
            Dependents,
        ),
        ("cannot destroy 'tank/a@s1': snapshot has dependent clones\nuse '-R' to destroy:\ntank/b", Dependents),
        ("cannot create 'tank/a': out of space", OutOfSpace),
        ("cannot set property for 'tank/a': size is greater than available space", OutOfSpace),
        ("cannot create snapshot 'tank/a@s1': pool is read-only", Rejected),
        ("cannot create 'tank/a': pool I/O is currently suspended", CommandFailed),
        ("The ZFS modules are not loaded.\nTry running '/sbin/modprobe zfs' as root to load them.", CommandFailed),
        ("Permission denied the ZFS utilities must be run as root.", CommandFailed),
        ("something nobody has seen", CommandFailed),
    ],
)
def test_a_text_of_the_tool_becomes_the_error_that_it_means(text, kind):
    error = failure(text)

    assert type(error) is kind
    assert "\n" not in error.sentence


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("cannot create 'rpool/a': pool I/O is currently suspended", "zpool clear rpool"),
        ("The ZFS modules are not loaded.\nTry running '/sbin/modprobe zfs' as root to load them.", "modprobe zfs"),
        ("Permission denied the ZFS utilities must be run as root.", "as root"),
    ],
)
def test_an_error_that_an_operator_can_end_says_how(text, remedy):
    assert remedy in failure(text).sentence


def test_a_name_that_contains_the_words_of_an_error_is_no_error():
    assert type(failure("cannot rename 'tank/is-busy': dataset does not exist")) is Missing


# Places


@pytest.mark.parametrize(
    ("leaf", "prefix", "number"),
    [
        ("one-1", "", 0),
        (f".new-{UUID}", places.NEW, 0),
        (f".trash-{UUID}", places.TRASH, 0),
        (f".back-{UUID}", places.BACK, 0),
        (f".gone-{UUID}", places.GONE, 0),
        (f".past-{UUID}.12", places.PAST, 12),
    ],
)
def test_a_place_of_ours_is_told_by_its_name(leaf, prefix, number):
    place = places.place_of(leaf)

    assert (place.leaf, place.prefix, place.number) == (leaf, prefix, number)
    assert place.uuid == (UUID if prefix else None)


@pytest.mark.parametrize(
    "leaf",
    [
        *("", "One-1", "one_1", "a/b", "a@b", ".new-", ".new-x", ".new-" + UUID.upper(), f".new-{UUID}x"),
        *(f".past-{UUID}", f".past-{UUID}.0", f".past-{UUID}.01", f".trash-{UUID}/a"),
    ],
)
def test_any_other_name_is_somebody_elses(leaf):
    assert places.place_of(leaf) is None


# Properties


def read_back(volume, **more):
    values = {"type": Value("volume", "-"), "volsize": Value(str(volume.size_bytes), "local")}
    for setting in settings(volume, **more):
        name, _, text = setting.partition("=")
        assert len(text) <= 8191
        values[name] = Value(text, "local")
    return Facts("rpool/data/onelun/x", values)


number = st.integers(0, 2**53)
attachments = st.builds(
    Attachment, host=st.sampled_from(["node1", "node2"]), initiator=st.just("iqn.2026-11.x.y:n"), epoch=number
)
owners = st.builds(
    Owner,
    kind=st.sampled_from(list(Kind)),
    cloud=st.none() | st.just(UUID),
    image_id=st.none() | number,
    regtime=st.none() | number,
    vm_id=st.none() | number,
    disk_id=st.none() | number,
)

kept = st.builds(
    Attributes,
    volblocksize_bytes=st.none() | st.sampled_from([512, 16384, 1 << 20]),
    compression=st.none() | st.sampled_from(["on", "zstd-19", "zstd-fast-1000"]),
    provisioning=st.none() | st.sampled_from(Provisioning),
    wipe=st.none() | st.sampled_from(Wipe),
)


@given(
    st.builds(
        Volume,
        pool=st.just("tank"),
        name=st.just("one-1"),
        uuid=st.uuids().map(str),
        size_bytes=st.integers(1, 2**40),
        state=st.sampled_from([State.BUILDING, State.READY, State.DELETING, State.TRASH]),
        owner=owners,
        origin=st.none() | st.uuids().map(str),
        filled_from=st.none() | st.just(f"{UUID} 3 0 {UUID}"),
        made_at=st.floats(0, 1e11),
        connected=st.booleans(),
        last_epoch=number,
        attachments=st.lists(attachments, max_size=5).map(tuple),
        attributes=kept,
    )
)
def test_every_fact_written_is_read_back(volume):
    assert volume_of(read_back(volume), "tank", volume.state) == volume


def of(*attachments):
    return Volume("tank", "one-1", UUID, MIB, State.READY, Owner(Kind.IMAGE), attachments=attachments)


def test_an_image_may_be_attached_to_two_hundred_hosts():
    volume = of(
        *(
            Attachment(f"node{n}.example.org", f"iqn.2026-11.io.onelun.host:node{n}.example.org", n, readonly=True)
            for n in range(200)
        )
    )

    assert volume_of(read_back(volume), "tank", State.READY) == volume
    assert volume_of(read_back(of()), "tank", State.READY).attachments == ()


def test_more_attachments_than_the_properties_hold_are_refused():
    with pytest.raises(Rejected, match="attachments"):
        list(settings(of(*(Attachment("node", "iqn.2026-11.x.y:z", n) for n in range(2000)))))


def test_the_properties_of_another_dataset_do_not_count():
    facts = parse(
        f"tank/a\t{AGENT}\t{UUID}\tinherited from tank\n"
        "tank/a\tio.onelun:uuid\tx\tlocal\n"
        "tank/a\tio.onelun:kind\timage\treceived\n"
        "tank/a\tio.onelun:cloud\t-\t-\n"
    )["tank/a"]

    assert facts.user(AGENT) is None
    assert (facts.ours("uuid"), facts.ours("kind"), facts.ours("cloud")) == ("x", "image", None)


def test_lines_that_are_none_of_ours_are_passed_over():
    assert parse("tank/a\tx\twith\ttab\tlocal\n\ntank/a\tvolsize\t512\t-\n")["tank/a"].number("volsize") == 512


def test_a_dataset_whose_facts_are_none_is_no_volume():
    for change in ({"kind": "cupboard"}, {"made_at": "yesterday"}, {"attachments": "[}"}, {"uuid": None}):
        with pytest.raises(ValueError):
            volume_of(read_back(of(), **change), "tank", State.READY)


# Capacity


def dataset(path, used, available, quota=0):
    values = {"used": used, "available": available, "quota": quota}
    return Facts(path, {name: Value(str(value), "-") for name, value in values.items()})


def test_capacity_is_what_the_zpool_has_left_for_the_dataset():
    seen = Seen(dataset("t/a/b", 10, 500), (dataset("t", 300, 600), dataset("t/a", 20, 500)), {})

    assert seen.capacity() == Capacity(total_bytes=900, used_bytes=10, free_bytes=500)


def test_the_least_quota_above_is_the_total():
    seen = Seen(dataset("t/a/b", 10, 190, 400), (dataset("t", 300, 600), dataset("t/a", 10, 190, 200)), {})

    assert seen.capacity() == Capacity(total_bytes=200, used_bytes=10, free_bytes=190)


def test_a_dataset_that_is_the_zpools_own_has_all_of_it():
    assert Seen(dataset("t", 300, 600), (), {}).capacity() == Capacity(900, 300, 600)


# Configuration


@pytest.mark.parametrize("size", [1, MIB - 512, MIB, MIB + 512, 5 * MIB])
def test_sizes_are_whole_mebibytes(size):
    assert rounded(size) % MIB == 0
    assert 0 <= rounded(size) - size < MIB
    assert rounded(rounded(size)) == ZfsBackend("tank", "tank/onelun").rounded(size)


@pytest.mark.parametrize(
    "properties",
    [
        {"volblocksize": "64K", "compression": "zstd-3"},
        {"volblocksize": "8k"},
        {"volblocksize": "16384"},
        {"refreservation": "auto"},
        {"sync": "always"},
    ],
)
def test_properties_of_volumes_are_taken(properties):
    ZfsBackend("tank", "tank/onelun", properties=properties)


@pytest.mark.parametrize(
    ("properties", "word"),
    [
        ({"mountpoint": "/x"}, "mountpoint"),
        ({"io.onelun:uuid": UUID}, "io.onelun:uuid"),
        ({"volmode": "none"}, "volmode"),
        ({"compression": "on -o x=y"}, "compression"),
        ({"compression": ""}, "compression"),
        ({"volblocksize": "3K"}, "volblocksize"),
        ({"volblocksize": "2M"}, "volblocksize"),
        ({"sync": "disabled"}, "sync"),
        ({"refreservation": "10G"}, "refreservation"),
    ],
)
def test_properties_that_a_volume_cannot_have_are_refused(properties, word):
    with pytest.raises(Rejected, match=word):
        ZfsBackend("tank", "tank/onelun", properties=properties)


# A machine without ZFS


async def test_a_name_or_uuid_that_is_none_is_not_asked_of_the_storage():
    backend = ZfsBackend("tank", "no-such-pool/onelun")

    assert await backend.find("../x") is None
    assert await backend.find_uuid("x") is None


async def test_without_a_pool_that_works_nothing_is_said_to_be_absent():
    backend = ZfsBackend("tank", f"none{uuids.uuid4().hex}/onelun")

    for asked in (
        backend.find("one-1"),
        backend.find_uuid(UUID),
        backend.volumes(),
        backend.capacity(),
        backend.serial(),
    ):
        with pytest.raises(CommandFailed):
            await asked
    with pytest.raises((CommandFailed, NotFound)):
        await backend.open(UUID, None)


async def test_check_says_in_one_sentence_what_is_missing():
    found = await ZfsBackend("tank", f"none{uuids.uuid4().hex}/onelun").check(UUID, None)

    assert len([sentence for sentence in found if "udev" not in sentence]) == 1
    assert all("\n" not in sentence for sentence in found)
