"""The verbs for a VM's directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from onelun.errors import Rejected
from onelun.rpc.message import (
    Entry,
    ListDir,
    PutEntry,
    ReadFile,
    RemoveEntry,
    decode_request,
    encode,
)

if TYPE_CHECKING:
    from tests.unit.compute.conftest import Bench


def vm(bench: Bench) -> str:
    return f"/{bench.place}/datastores//103/5"


async def test_a_directory_is_carried_entry_by_entry(bench: Bench) -> None:
    path = vm(bench)
    await bench.ask(PutEntry(path=path, entry=Entry(name=".", kind="dir", mode=0o750)))
    await bench.ask(PutEntry(path=path, entry=Entry(name="disk.0", kind="link", target="/dev/onelun/nas1/tank/one-1")))
    await bench.ask(PutEntry(path=path, entry=Entry(name="disk.1", kind="file", size=6), data=b"one", last=False))
    await bench.ask(PutEntry(path=path, entry=Entry(name="disk.1", kind="file", size=6), data=b"two", offset=3))

    listed = await bench.ask(ListDir(path=path))

    assert listed.exists
    assert listed.entries == (
        Entry(name="disk.0", kind="link", mode=0o777, target="/dev/onelun/nas1/tank/one-1"),
        Entry(name="disk.1", kind="file", mode=0o640, size=6),
    )
    assert os.stat(path).st_mode & 0o777 == 0o750
    assert (await bench.ask(ReadFile(path=path, name="disk.1", offset=2))).data == b"etwo"


async def test_an_absent_directory_does_not_exist(bench: Bench) -> None:
    assert not (await bench.ask(ListDir(path=vm(bench)))).exists


async def test_a_file_that_ends_early_is_rejected(bench: Bench) -> None:
    with pytest.raises(Rejected, match="should have 6"):
        await bench.ask(PutEntry(path=vm(bench), entry=Entry(name="disk.1", kind="file", size=6), data=b"one"))


async def test_a_link_without_a_text_is_rejected(bench: Bench) -> None:
    with pytest.raises(Rejected):
        await bench.ask(PutEntry(path=vm(bench), entry=Entry(name="disk.0", kind="link")))


async def test_removing_succeeds_twice(bench: Bench) -> None:
    await bench.ask(PutEntry(path=vm(bench), entry=Entry(name="disk.1", kind="file"), data=b"x"))

    await bench.ask(RemoveEntry(path=vm(bench), name="disk.1"))
    await bench.ask(RemoveEntry(path=vm(bench), name="disk.1"))
    await bench.ask(RemoveEntry(path=vm(bench)))
    await bench.ask(RemoveEntry(path=vm(bench)))

    assert os.listdir(bench.place / "datastores/103") == []


async def test_bytes_survive_the_wire(bench: Bench) -> None:
    data = bytes(range(256))
    request = PutEntry(path=vm(bench), entry=Entry(name="disk.1", kind="file"), data=data)

    await bench.ask(decode_request(encode(request)))

    assert (await bench.ask(ReadFile(path=vm(bench), name="disk.1"))).data == data


@pytest.mark.parametrize("path", ["/etc", "{root}", "{root}/103", "{root}/103/5/../../../../etc"])
async def test_nothing_is_touched_outside(bench: Bench, path: str) -> None:
    path = path.replace("{root}", f"{bench.place}/datastores")

    for request in (
        ListDir(path=path),
        ReadFile(path=path, name="passwd"),
        PutEntry(path=path, entry=Entry(name="x", kind="file"), data=b"x"),
        PutEntry(path=path, entry=Entry(name="x", kind="link", target="y")),
        PutEntry(path=path, entry=Entry(name=".", kind="dir")),
        RemoveEntry(path=path),
        RemoveEntry(path=path, name="x"),
    ):
        with pytest.raises(Rejected):
            await bench.ask(request)
