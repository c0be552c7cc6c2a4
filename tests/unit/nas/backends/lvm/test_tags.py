"""Facts as LVM tags, and back."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelun.errors import Rejected
from onelun.model import Attachment, Attributes, Kind, Owner, Provisioning, Snapshot, State, Volume, Wipe
from onelun.nas.backends.lvm.tags import (
    PoolFacts,
    Replacement,
    SnapshotFacts,
    UnreadableError,
    VolumeFacts,
    ours,
    pool_tags,
    read_pool,
    read_snapshot,
    read_volume,
    snapshot_tags,
    volume_tags,
)

UUID = "0b6a4e0e-57a1-4d7c-9a64-4d9d5f1d7a10"
OTHER = "1c7b5f1f-68b2-4e8d-8b75-5eae602e8b21"
# lvm(8), "Tags".
TAG = re.compile(r"[A-Za-z0-9_+./=!:&#][A-Za-z0-9_+./=!:&#-]{0,1023}")
VOLUME = Volume(
    pool="tank",
    name="one-1",
    uuid=UUID,
    size_bytes=1 << 30,
    state=State.READY,
    owner=Owner(kind=Kind.IMAGE, cloud=OTHER, image_id=1, regtime=1700000000),
)

texts = st.text(max_size=40)
times = st.floats(0, 1e11, allow_nan=False)
attachments = st.builds(
    Attachment,
    host=texts,
    initiator=texts,
    epoch=st.integers(1, 2**60),
    readonly=st.booleans(),
    beside=st.none() | texts,
)
owners = st.builds(
    Owner,
    kind=st.sampled_from(Kind),
    cloud=st.none() | texts,
    image_id=st.none() | st.integers(0),
    regtime=st.none() | st.integers(0),
    vm_id=st.none() | st.integers(0),
    disk_id=st.none() | st.integers(0),
)
kept = st.builds(
    Attributes,
    volblocksize_bytes=st.none() | st.sampled_from([512, 16384, 1 << 20]),
    compression=st.none() | st.sampled_from(["on", "zstd-19", "zstd-fast-1000"]),
    provisioning=st.none() | st.sampled_from(Provisioning),
    wipe=st.none() | st.sampled_from(Wipe),
)
volumes = st.builds(
    Volume,
    pool=st.just("tank"),
    name=texts,
    uuid=st.just(UUID),
    size_bytes=st.integers(512, 2**60),
    state=st.sampled_from(State),
    owner=owners,
    origin=st.none() | texts,
    filled_from=st.none() | texts,
    made_at=times,
    connected=st.booleans(),
    last_epoch=st.integers(0, 2**60),
    attachments=st.lists(attachments, max_size=12).map(tuple),
    attributes=kept,
)
facts_of_volumes = st.builds(
    VolumeFacts,
    volume=volumes,
    trashed_at=st.none() | times,
    replaces=st.none() | st.builds(Replacement, uuid=st.just(OTHER), at=times),
)


@given(facts_of_volumes)
def test_a_volumes_facts_come_back_from_its_tags(facts):
    tags = volume_tags(facts)

    assert read_volume("tank", UUID, facts.volume.size_bytes, tags) == facts
    assert ours(tags) == tags


@pytest.mark.parametrize("text", ["null", "None", "true", "1", "", "!20", "#", "=", "ä"])
def test_a_text_that_looks_like_something_else_comes_back_as_it_is(text):
    facts = VolumeFacts(
        msgspec.structs.replace(VOLUME, origin=text, attachments=(Attachment(text, text, 1, beside=text),))
    )

    assert read_volume("tank", UUID, VOLUME.size_bytes, volume_tags(facts)) == facts


@given(facts_of_volumes)
def test_every_tag_is_one_that_lvm_takes(facts):
    for tag in volume_tags(facts):
        assert TAG.fullmatch(tag)


@given(st.builds(SnapshotFacts, of=st.just(UUID), snapshot=st.builds(Snapshot, texts, times, st.integers(512, 2**60))))
def test_a_snapshots_facts_come_back_from_its_tags(facts):
    assert read_snapshot(UUID, facts.snapshot.size_bytes, snapshot_tags(facts)) == facts


@given(st.builds(PoolFacts, owner=st.none() | texts, cloud=st.none() | texts, serial=st.integers(0, 2**60)))
def test_a_pools_facts_come_back_from_its_tags(facts):
    assert read_pool(pool_tags(facts)) == facts


def test_tags_read_as_an_operator_expects():
    tags = volume_tags(VolumeFacts(msgspec.structs.replace(VOLUME, made_at=1700000000.25, filled_from="a 3 0")))

    assert tags == {
        f"onelun.uuid={UUID}",
        "onelun.name=one-1",
        "onelun.state=ready",
        "onelun.kind=image",
        f"onelun.cloud={OTHER}",
        "onelun.image_id=1",
        "onelun.regtime=1700000000",
        "onelun.made_at=1700000000.25",
        "onelun.filled_from=a!203!200",
    }


def test_tags_of_the_operator_and_of_later_releases_are_not_ours_to_remove():
    tags = {"backup", "owner=me", "onelun.colour=red", *volume_tags(VolumeFacts(VOLUME))}

    assert ours(tags) == volume_tags(VolumeFacts(VOLUME))
    assert read_volume("tank", UUID, 1 << 30, tags) == VolumeFacts(VOLUME)


@pytest.mark.parametrize(
    "tags",
    [
        set(),
        volume_tags(VolumeFacts(msgspec.structs.replace(VOLUME, uuid=OTHER))),
        volume_tags(VolumeFacts(VOLUME)) - {"onelun.name=one-1"},
        volume_tags(VolumeFacts(VOLUME)) - {"onelun.kind=image"},
        volume_tags(VolumeFacts(VOLUME)) - {"onelun.state=ready"} | {"onelun.state=gone"},
        volume_tags(VolumeFacts(VOLUME)) | {"onelun.last_epoch=many"},
        volume_tags(VolumeFacts(VOLUME)) | {"onelun.attachment.0=host=node1"},
        volume_tags(VolumeFacts(VOLUME)) | {"onelun.attachment.x=host=node1"},
        volume_tags(VolumeFacts(VOLUME)) | {"onelun.replaces=" + OTHER},
        volume_tags(VolumeFacts(VOLUME)) | {"onelun.filled_from=!ff"},
    ],
)
def test_tags_that_are_no_facts_are_unreadable(tags):
    with pytest.raises(UnreadableError):
        read_volume("tank", UUID, 1 << 30, tags)


def test_a_fact_too_long_for_a_tag_is_refused():
    with pytest.raises(Rejected, match="1024"):
        volume_tags(VolumeFacts(msgspec.structs.replace(VOLUME, filled_from="x" * 1020)))
