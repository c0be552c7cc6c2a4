"""What LVM's tools, dmsetup, thin_ls and thin_delta print, damaged: a pool is read, or an error says why not."""

from __future__ import annotations

import json

from hypothesis import strategies as st
from tests.support.fuzzing import Loop, attacks, refusable
from tests.support.mutation import as_bytes, lines_of, texts, values

from onelun.model import Attachment, Kind, Owner, Snapshot, State, Volume
from onelun.nas.backends.lvm.backend import LvmBackend
from onelun.nas.backends.lvm.delta import Delta
from onelun.nas.backends.lvm.devices import read_status
from onelun.nas.backends.lvm.listing import snapshot_lv, volume_lv
from onelun.nas.backends.lvm.tags import (
    PoolFacts,
    Replacement,
    SnapshotFacts,
    VolumeFacts,
    pool_tags,
    snapshot_tags,
    volume_tags,
)
from onelun.nas.backends.lvm.usage import parsed

AGENT = "0b6a4e0e-57a1-4d7c-9a64-4d9d5f1d7a10"
VOLUME = Volume(
    pool="tank",
    name="one-7",
    uuid="5a0f1f1e-9d3e-4a0b-8a77-0d5f1d7a1000",
    size_bytes=1 << 30,
    state=State.READY,
    owner=Owner(kind=Kind.IMAGE, cloud=AGENT, image_id=7, regtime=1795245258),
    made_at=1795245258.5,
    attachments=(Attachment("node1", "iqn.2026-11.io.onelun.host:node1", 100001),),
)
LVS = [
    {"lv_name": "pool", "lv_tags": ",".join(sorted(pool_tags(PoolFacts(owner=AGENT, serial=3)))), "pool_lv": ""},
    {
        "lv_name": volume_lv(VOLUME.uuid),
        "lv_tags": ",".join(sorted(volume_tags(VolumeFacts(VOLUME, 1795245259.0, Replacement(AGENT, 1.5))))),
        "pool_lv": "pool",
    },
    {
        "lv_name": snapshot_lv(VOLUME.uuid, "snap-0"),
        "lv_tags": ",".join(sorted(snapshot_tags(SnapshotFacts(VOLUME.uuid, Snapshot("snap-0", 1.5, 1 << 30))))),
        "pool_lv": "pool",
    },
]
# All columns that any question asks for.
COLUMNS = {
    "lv_size": str(1 << 30),
    "vg_extent_size": "4194304",
    "chunk_size": "65536",
    "segtype": "thin-pool",
    "zero": "zero",
    "discards": "passdown",
    "thin_id": "1",
    "lv_role": "private,thin,pool",
    "vg_mda_size": "1044480",
    "vg_mda_free": "500000",
    "vg_permissions": "writeable",
    "vg_missing_pv_count": "0",
    "vg_uuid": "WguBdI-Y9sK-7Yeg-q7QI-lnkf-ll2c-5q3Z8T",
    "vg_seqno": "52",
    "vg_mda_used_count": "1",
    "pv_name": "/dev/nowhere",
}
REPORT = {"report": [{"lv": [{**COLUMNS, **row} for row in LVS]}]}
STATUS = """\
vg0-pool-tpool: 0 4194304 thin-pool 7 421/4096 100/32768 358 rw discard_passdown error_if_no_space - 1024
vg0-pool: 0 4194304 thin-pool 0 420/4096 0/32768 - rw no_discard_passdown queue_if_no_space - 1024
vg5-pool: 0 4194304 thin-pool Fail
"""
THIN_LS = "  1  1048576  65536\n 12 0 0\n"
DELTA = """\
<superblock uuid="" time="1" transaction="3" data_block_size="128" nr_data_blocks="2048" metadata_snap="358">
  <diff left="1" right="2">
    <same begin="0" length="16"/>
    <right_only begin="16" length="1"/>
    <left_only begin="20" length="4"/>
    <different begin="24" length="2"/>
  </diff>
</superblock>
"""


def asked(loop: Loop) -> None:
    """Everything that only reads, of a pool that is seen for the first time. Some of it may be refused."""
    backend = LvmBackend("tank", "vg0", "pool")
    for question in (backend.volumes, backend.capacity, backend.serial, backend.usages):
        refusable(loop, question())
    for question in (backend.snapshots, backend.usage, backend.activate):
        refusable(loop, question(VOLUME))
    refusable(loop, backend.changed(VOLUME, "snap-0", "snap-0"))
    refusable(loop, backend.find(VOLUME.name))
    refusable(loop, backend.find_uuid(VOLUME.uuid))
    refusable(loop, backend.foreign("other"))
    refusable(loop, backend.check(AGENT, None))
    refusable(loop, backend.open(AGENT, None))


def say(tools, **told: str) -> None:
    report = json.dumps(REPORT)
    prints = {"lvs": report, "vgs": report, "dmsetup status": STATUS, "dmsetup info": "0\n", "thin_ls": THIN_LS}
    tools.say({**prints, "thin_delta": DELTA, **{name.replace("_", " "): text for name, text in told.items()}})


@attacks("tools", values([REPORT]))
def test_a_report_with_other_rows(loop: Loop, tools, has_tools, report) -> None:
    text = json.dumps(report)
    say(tools, lvs=text, vgs=text)

    asked(loop)


@attacks("tools", texts([json.dumps(REPORT)]), st.sampled_from([0, 0, 0, 5, -11]))
def test_a_report_that_is_none(loop: Loop, tools, has_tools, text: str, status: int) -> None:
    say(tools, lvs=text, vgs=text)
    tools.status, tools.stderr = status, text[:500] if status else ""

    asked(loop)


@attacks(
    "tools", st.one_of(texts([STATUS]), lines_of([STATUS])), st.one_of(texts([THIN_LS, "0\n"]), lines_of([THIN_LS]))
)
def test_what_the_kernel_tells_is_damaged(loop: Loop, tools, has_tools, status: str, numbers: str) -> None:
    say(tools, dmsetup_status=status, dmsetup_info=numbers, thin_ls=numbers)

    read_status(status, "vg0-pool")
    asked(loop)
    parsed(numbers)


@attacks("tools", st.one_of(texts([DELTA]), lines_of([DELTA])), st.integers(1, 60))
def test_a_difference_that_is_damaged(text: str, piece: int) -> None:
    delta = Delta(100 << 20)
    content = as_bytes(text)[:6000]
    for at in range(0, len(content), piece):
        delta.feed(content[at : at + piece])

    for extent in delta.extents():
        assert 0 <= extent.offset < extent.end <= 100 << 20
