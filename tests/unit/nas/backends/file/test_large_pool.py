"""What a step costs does not grow with the pool: it reads the facts of the volumes that it is about, and no others."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from onelun.model import Kind, Owner, Volume
from onelun.nas.backends.file import tree
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
