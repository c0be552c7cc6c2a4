"""What zfs and zpool print, damaged: a pool is read, or an error says why not."""

from __future__ import annotations

import io
import struct

from hypothesis import strategies as st
from tests.support.fuzzing import Loop, attacks, refusable
from tests.support.mutation import blobs, lines_of, texts

from onelun.model import Attachment, Kind, Owner, State, Volume
from onelun.nas.backends.zfs import stream
from onelun.nas.backends.zfs.backend import ZfsBackend
from onelun.nas.backends.zfs.properties import AGENT, CLOUD, COLUMNS, SERIAL, parse, settings
from onelun.nas.backends.zfs.stream import MAGIC, RECORD_BYTES, changes

AGENT_UUID = "0b6a4e0e-57a1-4d7c-9a64-4d9d5f1d7a10"
VOLUME = Volume(
    pool="tank",
    name="one-7",
    uuid="5a0f1f1e-9d3e-4a0b-8a77-0d5f1d7a1000",
    size_bytes=1 << 30,
    state=State.READY,
    owner=Owner(kind=Kind.IMAGE, cloud=AGENT_UUID, image_id=7, regtime=1795245258),
    made_at=1795245258.5,
    last_epoch=100001,
    attachments=(Attachment("node1", "iqn.2026-11.io.onelun.host:node1", 100001),),
)
NATIVE = {"used": "4096", "usedbydataset": "4096", "available": "99999999", "quota": "0", "readonly": "off"}


def printed() -> str:
    """What `zfs get -Hp` prints of the zpool, the pool's dataset and two of its volumes."""
    above = {**NATIVE, "type": "filesystem"}
    owned = {**above, AGENT: AGENT_UUID, CLOUD: AGENT_UUID, SERIAL: "1"}
    facts = dict(setting.split("=", 1) for setting in settings(VOLUME, past="1", trashed_at="1795245300.0"))
    volume = {**NATIVE, "type": "volume", "volsize": str(VOLUME.size_bytes), **facts}
    rows = {"rpool": above, "rpool/onelun": owned, f"rpool/onelun/{VOLUME.name}": volume}
    rows[f"rpool/onelun/.new-{VOLUME.uuid}"] = volume
    return "".join(
        f"{path}\t{column}\t{told.get(column, '-')}\t{'local' if column in told else '-'}\n"
        for path, told in rows.items()
        for column in COLUMNS
    )


LEAF = "rpool/onelun/one-7"
SNAPSHOTS = "".join(f"{LEAF}@snap:snap-{n}\t179524525{n}\t10{n}\t1073741824\t4096\n" for n in range(2))
USED = "".join(f"{LEAF}@snap:snap-{n}\t4096\n" for n in range(2))
STATUSES = st.sampled_from([0, 0, 0, 0, 0, 1, 2, -9])


def mutated(*recorded: str) -> st.SearchStrategy[str]:
    """A table, with words or columns changed; every third time as it was."""
    return st.one_of(texts(recorded), lines_of(recorded), st.sampled_from(recorded))


def asked(loop: Loop) -> None:
    """Everything that only reads, of a pool that is seen for the first time. Some of it may be refused."""
    backend = ZfsBackend("tank", "rpool/onelun", properties={})
    for question in (backend.volumes, backend.capacity, backend.serial, backend.usages):
        refusable(loop, question())
    for question in (backend.snapshots, backend.usage):
        refusable(loop, question(VOLUME))
    refusable(loop, backend.find(VOLUME.name))
    refusable(loop, backend.find_uuid(VOLUME.uuid))
    refusable(loop, backend.foreign("other"))
    loop.run(backend.check(AGENT_UUID, None))


@attacks("tools", mutated(printed()), STATUSES)
def test_a_pool_whose_properties_are_damaged(loop: Loop, tools, text: str, status: int) -> None:
    tools.say({"zpool": "ONLINE\toff\n", "zfs get": text, "zfs list": SNAPSHOTS}, text[:200] if status else "", status)

    asked(loop)


@attacks("tools", mutated(SNAPSHOTS, USED), mutated("ONLINE\toff\n"))
def test_a_pool_whose_lists_are_damaged(loop: Loop, tools, text: str, health: str) -> None:
    tools.say({"zpool": health, "zfs get": printed(), "zfs list": text})

    asked(loop)


@attacks("tools", texts([printed(), SNAPSHOTS]))
def test_any_text_is_a_table(text: str) -> None:
    for facts in parse(text).values():
        facts.native("type")


def record(kind: int, *fields: tuple[int, str, int], follows: int = 0) -> bytes:
    head = bytearray(RECORD_BYTES)
    struct.pack_into("<II", head, 0, kind, 0)
    for at, letter, value in fields:
        struct.pack_into("<" + letter, head, at, value)
    return bytes(head) + b"\xff" * follows


STREAM = b"".join(
    (
        record(stream.BEGIN, (8, "Q", MAGIC)),
        record(stream.OBJECT, (8, "Q", 1), (28, "I", 8), follows=8),
        record(stream.FREEOBJECTS, (8, "Q", 3), (16, "Q", 4)),
        record(stream.WRITE, (8, "Q", 1), (24, "Q", 8192), (32, "Q", 4096), follows=4096),
        record(stream.FREE, (8, "Q", 1), (16, "Q", 65536), (24, "Q", 65536)),
        record(stream.SPILL, (8, "Q", 1), (16, "Q", 512), follows=512),
        record(stream.END),
    )
)


@attacks("tools", blobs([STREAM]))
def test_a_stream_tells_ranges_or_is_refused(content: bytes) -> None:
    for extent in changes(io.BytesIO(content)):
        assert extent.length >= 0
