"""Adopting a file: what an interruption leaves, and what is refused."""

import asyncio
import contextlib
import os
import uuid as uuids

import pytest

from onelun.errors import Busy, Conflict, Rejected
from onelun.model import Kind, Owner, State
from onelun.nas.backends.file import adopting
from onelun.nas.backends.file.backend import FileBackend

AGENT = "0b6a4e0e-57a1-4d7c-9a64-4d9d5f1d7a10"
CLOUD = "4f2c1f0e-7a55-4c58-9b5c-0c7f3a6f1a01"
ADOPTED = Owner(kind=Kind.IMAGE, cloud=CLOUD)
CONTENT = b"content " * 1024


class StopError(BaseException):
    """The machine stops."""


@pytest.fixture
async def backend(tmp_path):
    made = FileBackend("tank", str(tmp_path))
    await made.open(AGENT, None)
    (tmp_path / "legacy").write_bytes(CONTENT)
    return made


async def again(tmp_path):
    backend = FileBackend("tank", str(tmp_path))
    await backend.open(AGENT, None)
    return backend


def visible(tmp_path):
    return sorted(name for name in os.listdir(tmp_path) if name != ".pool.json")


@pytest.mark.parametrize("name", ["legacy", "other"])
@pytest.mark.parametrize("step", ["link", "write_volume", "exchange", "rename_new", "_unlink_name"])
async def test_the_data_has_one_name_after_every_interruption(backend, tmp_path, monkeypatch, name, step):
    def stop(*args, **more):
        raise StopError

    with monkeypatch.context() as patch:
        # As when the machine stops there: nothing behind it is done, no undoing either.
        patch.setattr(adopting.FileAdopting, "tidy", lambda self, root: None)
        patch.setattr(os if step == "link" else adopting, step, stop)
        try:
            await backend.adopt("legacy", name, str(uuids.uuid4()), ADOPTED)
        except StopError:
            stopped = True
        else:
            stopped = False

    assert stopped or step == ("rename_new" if name == "legacy" else "exchange")
    after = await again(tmp_path)
    (left,) = visible(tmp_path)
    if await after.foreign("legacy"):
        await after.adopt("legacy", name, str(uuids.uuid4()), ADOPTED)
    volume = await after.find(name)
    assert visible(tmp_path) == [name]
    assert volume.state is State.READY
    assert (tmp_path / name / "data").read_bytes() == CONTENT
    assert (tmp_path / name / "data").stat().st_nlink == 1
    assert left in ("legacy", name)


async def test_a_failure_leaves_the_file_as_it_was(backend, tmp_path, monkeypatch):
    def fail(*args, **more):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(adopting, "write_volume", fail)
    with pytest.raises(Exception, match="Input/output error"):
        await backend.adopt("legacy", "other", str(uuids.uuid4()), ADOPTED)

    assert visible(tmp_path) == ["legacy"]
    assert (tmp_path / "legacy").read_bytes() == CONTENT


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR])
async def test_a_file_that_anybody_has_open_is_busy(backend, tmp_path, flags):
    held = os.open(tmp_path / "legacy", flags)
    try:
        with pytest.raises(Busy, match="legacy is open: a process, a target or a mount has it"):
            await backend.adopt("legacy", "legacy", str(uuids.uuid4()), ADOPTED)
    finally:
        os.close(held)

    assert visible(tmp_path) == ["legacy"]


async def test_a_file_with_another_name_is_refused(backend, tmp_path):
    os.link(tmp_path / "legacy", tmp_path / "second")

    with pytest.raises(Rejected, match="legacy has other names"):
        await backend.adopt("legacy", "legacy", str(uuids.uuid4()), ADOPTED)

    assert visible(tmp_path) == ["legacy", "second"]


@pytest.mark.parametrize(("head", "name"), [(b"QFI\xfb", "qcow2"), (b"KDMV", "vmdk"), (b"vhdxfile", "vhdx")])
async def test_a_file_of_another_format_is_refused(backend, tmp_path, head, name):
    (tmp_path / "legacy").write_bytes(head.ljust(512, b"\0"))

    with pytest.raises(Rejected, match=f"legacy is a {name}, and a volume is raw"):
        await backend.adopt("legacy", "legacy", str(uuids.uuid4()), ADOPTED)


@pytest.mark.parametrize("size", [0, 511, 1000])
async def test_a_size_that_no_volume_has_is_refused(backend, tmp_path, size):
    (tmp_path / "legacy").write_bytes(bytes(size))

    with pytest.raises(Rejected, match=f"legacy has {size} bytes"):
        await backend.adopt("legacy", "legacy", str(uuids.uuid4()), ADOPTED)

    assert visible(tmp_path) == ["legacy"]


async def test_what_is_no_file_is_refused(backend, tmp_path):
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("legacy")
    os.mkfifo(tmp_path / "pipe")

    for found in ("directory", "link", "pipe"):
        with pytest.raises(Rejected, match="is no regular file"):
            await backend.adopt(found, "mine", str(uuids.uuid4()), ADOPTED)
    assert visible(tmp_path) == ["directory", "legacy", "link", "pipe"]


async def test_a_directory_of_that_name_is_not_replaced(backend, tmp_path):
    (tmp_path / "mine").mkdir()

    with pytest.raises(Conflict, match="mine in pool tank is taken by something that is no volume of ours"):
        await backend.adopt("legacy", "mine", str(uuids.uuid4()), ADOPTED)

    assert visible(tmp_path) == ["legacy", "mine"]


async def test_a_release_that_was_cut_off_is_ended_by_a_repeat(backend, tmp_path, monkeypatch):
    volume = await backend.adopt("legacy", "mine", str(uuids.uuid4()), ADOPTED)

    def stop(*args, **more):
        raise StopError

    with monkeypatch.context() as patch:
        patch.setattr(backend._steps.tree, "remove", stop)
        with pytest.raises(StopError):
            await backend.release(volume)
    assert visible(tmp_path) == ["mine", "mine.raw"]

    assert await backend.release(volume) == "mine.raw"

    assert visible(tmp_path) == ["mine.raw"]
    assert (tmp_path / "mine.raw").read_bytes() == CONTENT


async def test_a_release_keeps_its_data_while_another_file_is_adopted(backend, tmp_path, monkeypatch):
    (tmp_path / "legacy").rename(tmp_path / "mine.raw")
    volume = await backend.adopt("mine.raw", "mine", str(uuids.uuid4()), ADOPTED)
    (tmp_path / "other").write_bytes(CONTENT)
    loop = asyncio.get_running_loop()
    adopting_other = []

    def remove(*args):
        """The data has both names here; the other file comes now."""
        adopting = asyncio.run_coroutine_threadsafe(backend.adopt("other", "second", str(uuids.uuid4()), ADOPTED), loop)
        adopting_other.append(adopting)
        with contextlib.suppress(TimeoutError):
            adopting.result(0.5)
        monkeypatch.undo()
        backend._steps.tree.remove(*args)

    monkeypatch.setattr(backend._steps.tree, "remove", remove)
    await backend.release(volume)
    await asyncio.wrap_future(adopting_other[0])

    assert visible(tmp_path) == ["mine.raw", "second"]
    assert (tmp_path / "mine.raw").read_bytes() == CONTENT
