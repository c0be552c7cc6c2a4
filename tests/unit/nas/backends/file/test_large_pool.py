"""What a step costs does not grow with the pool: it reads the facts of the volumes that it is about, and no others."""

from __future__ import annotations

import uuid
from pathlib import Path

import msgspec
import pytest

from onelun.model import Kind, Owner, Volume
from onelun.nas.backends.file import kept, sidecar, tree
from onelun.nas.backends.file.backend import FileBackend

MANY = 40
OWNER = Owner(Kind.PLAIN)


@pytest.fixture
async def pool(tmp_path: Path) -> FileBackend:
    backend = FileBackend("tank", str(tmp_path))
    await backend.open(str(uuid.uuid4()), None)
    for number in range(MANY):
        await made(backend, f"old-{number}")
    return backend


@pytest.fixture
def reads(pool: FileBackend, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One item for each time that a volume's facts are read from now on."""
    found: list[int] = []
    read_volume = tree.read_volume

    def counted(directory: int):
        found.append(directory)
        return read_volume(directory)

    monkeypatch.setattr(tree, "read_volume", counted)
    return found


async def made(backend: FileBackend, name: str) -> Volume:
    volume = await backend.create(name, str(uuid.uuid4()), 4096, OWNER)
    return await backend.publish(volume.uuid)


async def test_making_a_volume_reads_no_other(pool: FileBackend, reads: list[int]):
    await made(pool, "new")

    assert len(reads) < MANY / 2


async def test_cloning_a_volume_reads_it_alone(pool: FileBackend, reads: list[int]):
    origin = await pool.find("old-1")
    assert origin is not None

    clone = await pool.clone(origin, "new", str(uuid.uuid4()), 4096, OWNER, lambda *_: None)
    await pool.publish(clone.uuid)

    assert len(reads) < MANY / 2


async def test_finding_a_known_volume_by_its_uuid_reads_no_other(pool: FileBackend, reads: list[int]):
    volume = await pool.find("old-7")
    assert volume is not None

    assert await pool.find_uuid(volume.uuid) == volume

    assert len(reads) < MANY / 2


async def test_a_volume_that_was_moved_by_hand_is_found_all_the_same(pool: FileBackend, tmp_path: Path):
    volume = await pool.find("old-7")
    assert volume is not None
    (tmp_path / "old-7").rename(tmp_path / f".trash-{volume.uuid}")

    found = await pool.find_uuid(volume.uuid)

    assert found is not None
    assert found.uuid == volume.uuid


async def test_a_volume_that_took_anothers_name_is_not_taken_for_it(pool: FileBackend):
    old = await pool.find("old-7")
    assert old is not None
    await pool.destroy(old)
    new = await made(pool, "old-7")

    assert await pool.find_uuid(old.uuid) is None
    assert await pool.find_uuid(new.uuid) == new


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is long ago that anything was written."""
    monkeypatch.setattr(kept.time, "time_ns", lambda: 1 << 62)


async def test_looking_at_all_volumes_again_reads_none(pool: FileBackend, reads: list[int], settled: None):
    before = await pool.volumes()
    del reads[:]

    assert await pool.volumes() == before
    assert len(await pool.usages()) == MANY
    assert await pool.find_uuid(str(uuid.uuid4())) is None

    assert reads == []


async def test_facts_that_were_written_just_now_are_read_again(
    pool: FileBackend, reads: list[int], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(kept.time, "time_ns", lambda: 0)
    await pool.volumes()
    del reads[:]

    await pool.volumes()

    assert len(reads) == MANY


async def test_a_volume_that_changed_is_seen_among_all(pool: FileBackend, settled: None):
    old = {volume.name: volume for volume in await pool.volumes()}

    recorded = await pool.record(
        "old-1", old["old-1"].uuid, lambda now: msgspec.structs.replace(now, last_epoch=7, connected=True)
    )
    grown = await pool.grow(old["old-2"], 1 << 20)
    await pool.trash(old["old-3"])
    await pool.destroy(old["old-4"])
    made_anew = await made(pool, "old-4")

    now = {volume.uuid: volume for volume in await pool.volumes()}
    assert now[recorded.uuid] == recorded
    assert now[grown.uuid] == grown
    assert now[old["old-3"].uuid].state == "trash"
    assert old["old-4"].uuid not in now
    assert now[made_anew.uuid] == made_anew
    assert len(now) == MANY


async def test_a_volume_whose_facts_were_put_back_by_hand_is_seen_among_all(
    pool: FileBackend, tmp_path: Path, settled: None
):
    await pool.volumes()
    file = tmp_path / "old-1" / sidecar.VOLUME_FILE
    file.write_bytes(file.read_bytes().replace(b'"old-1"', b'"old-x"'))
    (tmp_path / "old-2" / sidecar.VOLUME_FILE).unlink()

    names = {volume.name for volume in await pool.volumes()}

    assert names == {f"old-{number}" for number in range(MANY)} - {"old-1", "old-2"}


async def test_who_asks_for_one_volume_has_its_facts_read(pool: FileBackend, reads: list[int], settled: None):
    [volume, *_] = await pool.volumes()
    del reads[:]

    await pool.find(volume.name)
    await pool.find_uuid(volume.uuid)

    assert len(reads) == 2


async def test_opening_a_pool_reads_each_volume_once(
    pool: FileBackend, tmp_path: Path, reads: list[int], settled: None
):
    again = FileBackend("tank", str(tmp_path))

    await again.open(pool_agent(tmp_path), None)
    await again.volumes()

    assert len(reads) == MANY


def pool_agent(path: Path) -> str:
    owner = msgspec.json.decode((path / sidecar.POOL_FILE).read_bytes(), type=sidecar.PoolFacts).owner
    assert owner is not None
    return owner
