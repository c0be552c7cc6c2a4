"""Names, sizes and paths that others choose, and the small files that agents keep, damaged."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st
from tests.support.fuzzing import Loop, attacks, check_sentence
from tests.support.mutation import HOSTILE, as_bytes, as_json, blobs, texts, values
from tests.unit.nas.conftest import Nodes

from onelun import naming
from onelun.compute.attachments import Attached, Attachments
from onelun.compute.connectors.iscsi.notes import Note, Notes
from onelun.compute.connectors.iscsi.records import Records
from onelun.compute.connectors.userspace import connector as userspace
from onelun.compute.readiness import Readiness
from onelun.compute.wanted import wanted
from onelun.config import Limits
from onelun.directory import Directory
from onelun.driver import attributes, permitted
from onelun.driver.document import Datastore
from onelun.driver.location import Hosts, parse_disk, parse_location, parse_source_argument
from onelun.driver.sizes import parse_size
from onelun.errors import OnelunError
from onelun.model import Attachment, Kind, Owner, Portal, Snapshot, State, Volume
from onelun.nas.agent import NasAgent
from onelun.nas.backends.file import sidecar
from onelun.nas.backends.lvm.tags import UnreadableError
from onelun.nas.backends.lvm.tags import read_volume as tagged_volume
from onelun.nas.backends.memory.backend import MemoryBackend
from onelun.nas.backends.zfs.places import place_of
from onelun.nas.exporters.memory import MemoryExporter
from onelun.rpc.journal import Journal
from onelun.rpc.message import SetZvol

CLOUD = "3f0c5a4e-6f0f-4b62-9d39-2d1f6a1c7b11"
IQN = "iqn.2026-11.io.onelun.nas1:tank.one-1.e100001"
ROOT = "/var/lib/one/datastores"
WORDS = (
    "nas1/tank/one-7",
    "fe:nas1/tank/one-7-3-0",
    f"host01:{ROOT}/103/7/disk.0",
    f"host01:{ROOT}//103/7/",
    "one-7",
    IQN,
    CLOUD,
    "1024",
    "16K",
)
TEXTS = st.one_of(texts(WORDS), st.sampled_from(HOSTILE))


def sure(read: Any, *given: Any) -> Any:
    """What `read` makes of it; None where it is refused."""
    try:
        return read(*given)
    except OnelunError as error:
        check_sentence(error)
        return None


@attacks("names and files", TEXTS)
def test_names(text: str) -> None:
    name = sure(naming.checked_name, text)
    assert name is None or (name.isascii() and "/" not in name and len(name) <= 63)
    if (source := sure(naming.parse_source, text)) is not None:
        assert naming.parse_source(str(source)) == source
        sure(naming.target_iqn, source, 1)
        sure(naming.disk_volume, source.volume, 7, 0)
    sure(naming.checked_initiator, text)
    sure(naming.checked_uuid, text)
    for judge in (naming.snapshot_id, naming.is_snapshot_of_opennebula, naming.epoch_of, place_of):
        judge(text)
    naming.is_target_of("nas1", text)


@attacks("names and files", TEXTS)
def test_locations_and_sizes(text: str) -> None:
    if (found := sure(parse_location, text, ROOT)) is not None:
        assert found.path.startswith(f"{ROOT}/")
        assert ".." not in found.path.split("/")
    sure(parse_disk, text, ROOT)
    sure(parse_source_argument, text)
    size = sure(parse_size, text)
    assert size is None or 0 < size <= 1 << 50
    sure(Hosts({"host01": "node1"}, ("vm",)).compute, text)
    for name in (
        "ONELUN_POOLS",
        "ONELUN_VOLBLOCKSIZE",
        "ONELUN_COMPRESSION",
        "ONELUN_WIPE",
        "ONELUN_" + text[:99].encode("utf-8", "replace").decode(),
    ):
        sure(attributes.read, {name: text}, attributes.Where.IMAGE, "image 7")


OFFER = {"target": IQN, "nas": "nas1", "address": "127.0.0.1", "port": 3260, "initiator": "iqn.2026-11.io.onelun.host:node1",
         "user": "u", "secret": "s" * 16, "zpool": "tank", "zvol": "one-1", "uuid": CLOUD, "size_bytes": 1 << 20}  # fmt: skip


@attacks("names and files", st.sampled_from(list(OFFER)), TEXTS, st.integers(-1, 1 << 17))
def test_offers_of_a_nas(tmp_path_factory: pytest.TempPathFactory, field: str, text: str, port: int) -> None:
    value = port if field in ("port", "size_bytes") else text
    found = wanted(SetZvol(**{**OFFER, field: value}), "iqn.2026-11.io.onelun.host:node1")
    records = Records(str(tmp_path_factory.getbasetemp()), "onelun.node1")
    records.put(found.export, found.export.portal)
    records.remove(found.export.iqn)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("datastores")
    (made / "103/7").mkdir(parents=True)
    (made / "103/7/disk.0").write_bytes(b"abc")
    return made


@attacks("names and files", TEXTS, TEXTS)
def test_paths_below_a_directory(place: Path, path: str, name: str) -> None:
    directory = Directory(str(place), f"{os.geteuid()}:{os.getegid()}")
    paths = (path.replace(ROOT, str(place)), f"{place}/103/7")
    for each in paths:
        sure(directory.entries, each)
        sure(directory.read, each, name, 0)
        sure(directory.remove, each, name + "x")
        sure(directory.put_link, each, name[:50] + "l", "/dev/onelun/nas1/tank/one-1")
    datastore = Datastore(102, "a", "", (str(place),), ("/",), no_decompress=False)
    opened = sure(permitted.open_image, path, datastore, ())
    if opened is not None:
        os.close(opened)


ATTACHED = Attached(IQN, "nas1", "nas1/tank/one-1", "/dev/sda", uuid=CLOUD, links=("/a/disk.0",))
SESSION = userspace.Session.__struct_fields__
KEPT = (
    msgspec.json.encode(ATTACHED),
    msgspec.json.encode(Note(IQN, 7, 1)),
    b'["nas1","nas2"]',
    b'{"portal":"127.0.0.1:3260","initiator":"iqn.a","readonly":false,"device":"/dev/loop0","session":{"pid":1,"started":7}}',
)
FILES = st.one_of(
    blobs(KEPT),
    texts([kept.decode() for kept in KEPT]).map(as_bytes),
    values([msgspec.json.decode(kept) for kept in KEPT]).map(as_json),
)


@attacks("names and files", FILES)
def test_files_of_a_compute_agent(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    run = tmp_path_factory.getbasetemp() / "run"
    run.mkdir(exist_ok=True)
    digest = hashlib.sha256(IQN.encode()).hexdigest()[:16]
    for name in (f"{digest}.json", IQN, "state", "nas.json"):
        (run / name).write_bytes(content)

    attachments, notes = Attachments(str(run)), Notes(str(run))
    attachments.all()
    attachments.get(IQN)
    notes.get(IQN)
    userspace._load(str(run))
    Readiness(str(run / "nas.json"))


VOLUME = Volume(
    "tank",
    "one-7",
    CLOUD,
    1 << 30,
    State.READY,
    Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=7),
    attachments=(Attachment("node1", "iqn.a", 1),),
)
FACTS = (
    msgspec.json.encode(sidecar.VolumeFacts(VOLUME, trashed_at=1.5)),
    msgspec.json.encode(sidecar.PoolFacts(owner=CLOUD, serial=3)),
    msgspec.json.encode(sidecar.SnapshotFacts(Snapshot("snap-0", 1.5, 1 << 30))),
)


@attacks("names and files", st.one_of(blobs(FACTS), values([msgspec.json.decode(fact) for fact in FACTS]).map(as_json)))
def test_sidecars_of_a_file_pool(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    place = tmp_path_factory.getbasetemp() / "sidecar"
    place.mkdir(exist_ok=True)
    for name in (sidecar.VOLUME_FILE, sidecar.POOL_FILE, "snapshot-a.json"):
        (place / name).write_bytes(content)
    directory = os.open(place, os.O_RDONLY)
    try:
        for read in (sidecar.read_volume, sidecar.read_pool, lambda at: sidecar.read_snapshot(at, "snapshot-a.json")):
            try:
                read(directory)
            except sidecar.UnreadableError:
                continue
    finally:
        os.close(directory)


@attacks(
    "names and files",
    st.lists(
        texts([f"onelun.uuid={CLOUD}", "onelun.attachment.0=host=node1#epoch=7", "onelun.kind=image"]), max_size=5
    ),
)
def test_tags_of_lvm(tags: list[str]) -> None:
    try:
        tagged_volume("tank", CLOUD, 1 << 30, tags)
    except UnreadableError:
        return


@pytest.fixture(scope="module")
def state(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state directory of a NAS agent that has served."""
    made = tmp_path_factory.mktemp("state")
    loop.run(served(made))
    return made


async def served(place: Path) -> None:
    """Start an agent there, look at what it keeps, and end it."""
    backend = MemoryBackend("tank")
    agent = NasAgent(
        "nas1", str(place), {"tank": backend}, MemoryExporter("nas1", Portal("127.0.0.1")), Nodes("node1"), Limits()
    )
    try:
        await agent.start()
        for rows in (
            agent.catalogue.attachments,
            agent.catalogue.placements,
            agent.catalogue.debts,
            agent.catalogue.imports,
        ):
            rows()
        agent._maintenance.pools()
    finally:
        agent.close()
    journal = Journal(str(place / "journal.sqlite"))
    try:
        await journal.open_rows()
    finally:
        await journal.close()


STATE = ("agent", "key", "catalogue.sqlite", "journal.sqlite")


@attacks("names and files", st.sampled_from(STATE), st.data(), share=0.1)
def test_files_of_a_nas_agent(
    loop: Loop, state: Path, tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    copy = tmp_path_factory.getbasetemp() / "damaged"
    shutil.copytree(state, copy)
    try:
        (copy / name).write_bytes(data.draw(blobs([(state / name).read_bytes()])))
        loop.run(served(copy))
    finally:
        shutil.rmtree(copy)


@attacks(
    "names and files",
    st.sampled_from(["maintenance", "copying", "serial"]),
    st.one_of(texts(['{"tank": "a"}', '[["tank", "a"]]', "7"]), st.sampled_from(HOSTILE)),
    share=0.1,
)
def test_words_in_the_catalogue(
    loop: Loop, state: Path, tmp_path_factory: pytest.TempPathFactory, key: str, text: str
) -> None:
    copy = tmp_path_factory.getbasetemp() / "damaged"
    shutil.copytree(state, copy)
    try:
        db = sqlite3.connect(copy / "catalogue.sqlite")
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, CAST(? AS TEXT))", (key, as_bytes(text)))
        db.commit()
        db.close()
        loop.run(served(copy))
    finally:
        shutil.rmtree(copy)
