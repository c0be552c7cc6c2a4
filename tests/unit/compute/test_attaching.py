"""set_zvol and tear_down: devices, names and links appear together and go together."""

from __future__ import annotations

import asyncio
import os
import uuid as uuids
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest

from onelun.errors import Busy, Conflict, NotFound, OnelunError, Rejected, Unreachable
from onelun.model import Portal
from onelun.rpc.message import ListDev, SetZvol, TearDown

if TYPE_CHECKING:
    from tests.unit.compute.conftest import Bench


@contextmanager
def opened(path: str) -> Iterator[None]:
    """A program on this host that has the device open."""
    with open(path, "rb"):
        yield


async def nothing_is_attached(bench: Bench) -> bool:
    return (await bench.ask(ListDev())).body == [] and bench.names() == []


async def test_a_disk_links_to_the_lasting_name_of_the_device(bench: Bench) -> None:
    request = bench.offer(link=bench.disk())

    reply = await bench.ask(request)

    assert os.readlink(bench.device()) == reply.bdev
    assert os.readlink(bench.disk()) == bench.device()
    assert os.path.samefile(bench.disk(), bench.place / "one-1")


async def test_the_list_tells_what_is_known_of_a_device(bench: Bench) -> None:
    request = bench.offer(link=bench.disk())
    reply = await bench.ask(request)

    listed = (await bench.ask(ListDev())).body

    assert listed == [
        {
            "target": request.target,
            "bdev": reply.bdev,
            "device": bench.device(),
            "uuid": request.uuid,
            "nas": "nas1",
            "alive": True,
            "links": [bench.disk()],
        }
    ]


async def test_setting_a_zvol_twice_changes_nothing(bench: Bench) -> None:
    request = bench.offer(link=bench.disk())

    first = await bench.ask(request)
    second = await bench.ask(request)

    assert first == second
    assert len((await bench.ask(ListDev())).body) == 1


async def test_one_device_may_have_two_links(bench: Bench) -> None:
    request = bench.offer(link=bench.disk(0))
    await bench.ask(request)

    await bench.ask(msgspec.structs.replace(request, link=bench.disk(1)))

    assert os.readlink(bench.disk(0)) == os.readlink(bench.disk(1)) == bench.device()
    await bench.ask(TearDown(target=request.target))
    assert os.listdir(os.path.dirname(bench.disk())) == []


async def test_tearing_down_removes_device_name_and_links(bench: Bench) -> None:
    request = bench.offer(link=bench.disk())
    await bench.ask(request)

    await bench.ask(TearDown(target=request.target))

    assert await nothing_is_attached(bench)
    assert not os.path.lexists(bench.disk())


async def test_tearing_down_twice_succeeds(bench: Bench) -> None:
    request = bench.offer(link=bench.disk())
    await bench.ask(request)

    await bench.ask(TearDown(target=request.target, link=bench.disk()))
    await bench.ask(TearDown(target=request.target, link=bench.disk()))

    assert await nothing_is_attached(bench)


async def test_tearing_down_may_keep_the_link(bench: Bench) -> None:
    request = bench.offer(link=bench.disk())
    await bench.ask(request)

    await bench.ask(TearDown(target=request.target, link=bench.disk(), keep_link=True))

    assert await nothing_is_attached(bench)
    assert os.readlink(bench.disk()) == bench.device()


async def test_tearing_down_may_keep_the_device(bench: Bench) -> None:
    request = bench.offer(link=bench.disk(0))
    await bench.ask(request)
    await bench.ask(msgspec.structs.replace(request, link=bench.disk(1)))

    await bench.ask(TearDown(target=request.target, link=bench.disk(0), keep_device=True))

    assert not os.path.lexists(bench.disk(0))
    assert os.readlink(bench.disk(1)) == bench.device()
    assert (await bench.ask(ListDev())).body[0]["links"] == [bench.disk(1)]


async def test_a_dangling_link_goes_though_nothing_is_known_of_the_target(bench: Bench) -> None:
    request = bench.offer(link=bench.disk())
    await bench.ask(request)
    await bench.ask(TearDown(target=request.target, keep_link=True))

    await bench.ask(TearDown(target=request.target, link=bench.disk()))

    assert not os.path.lexists(bench.disk())


async def test_a_link_to_something_else_is_left_alone(bench: Bench) -> None:
    request = bench.offer(link=bench.disk(0))
    await bench.ask(request)
    os.symlink("/dev/sda", bench.disk(1))

    await bench.ask(TearDown(target=request.target, link=bench.disk(1)))

    assert os.readlink(bench.disk(1)) == "/dev/sda"


async def test_a_late_tear_down_of_an_earlier_epoch_leaves_the_later_ones_link(bench: Bench) -> None:
    earlier = bench.offer(epoch=1, link=bench.disk())
    later = bench.offer(epoch=2, link=bench.disk())
    await bench.ask(earlier)
    await bench.ask(later)

    await bench.ask(TearDown(target=earlier.target, link=bench.disk()))

    assert os.path.samefile(bench.disk(), bench.place / "one-1")


async def test_a_later_epoch_replaces_an_earlier_one(bench: Bench) -> None:
    earlier, later = bench.offer(epoch=9), bench.offer(epoch=10)
    await bench.ask(earlier)

    reply = await bench.ask(later)

    assert [row["target"] for row in (await bench.ask(ListDev())).body] == [later.target]
    assert os.readlink(bench.device()) == reply.bdev


async def test_an_earlier_epoch_never_replaces_a_later_one(bench: Bench) -> None:
    earlier, later = bench.offer(epoch=9), bench.offer(epoch=10)
    await bench.ask(later)

    with pytest.raises(Conflict, match="out of date"):
        await bench.ask(earlier)

    assert [row["target"] for row in (await bench.ask(ListDev())).body] == [later.target]


async def test_an_earlier_epoch_that_is_open_is_busy(bench: Bench) -> None:
    earlier, later = bench.offer(epoch=1), bench.offer(epoch=2)
    await bench.ask(earlier)

    with opened(bench.device()), pytest.raises(Busy):
        await bench.ask(later)

    assert [row["target"] for row in (await bench.ask(ListDev())).body] == [earlier.target]
    assert os.path.samefile(bench.device(), bench.place / "one-1")


async def test_an_open_device_keeps_its_name_and_links(bench: Bench) -> None:
    request = bench.offer(link=bench.disk())
    await bench.ask(request)

    with opened(bench.disk()), pytest.raises(Busy):
        await bench.ask(TearDown(target=request.target, link=bench.disk()))

    assert os.path.samefile(bench.disk(), bench.place / "one-1")
    assert len((await bench.ask(ListDev())).body) == 1


async def test_force_tears_down_an_open_device(bench: Bench) -> None:
    request = bench.offer(link=bench.disk())
    await bench.ask(request)

    with opened(bench.disk()):
        await bench.ask(TearDown(target=request.target, force=True))

    assert await nothing_is_attached(bench)


async def test_one_is_not_ten(bench: Bench) -> None:
    one, ten = bench.offer("one-1"), bench.offer("one-10")
    await bench.ask(one)
    await bench.ask(ten)

    await bench.ask(TearDown(target=one.target))

    assert bench.names() == ["nas1", "nas1/tank", "nas1/tank/one-10"]


# What cannot be, and then leaves nothing


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"target": "iqn.2026-11.io.onelun.nas1:tank.one-2.e1"}, NotFound),
        ({"secret": "another-secret-16"}, Rejected),
        ({"uuid": str(uuids.uuid4())}, Conflict),
        ({"size_bytes": 512}, Conflict),
        ({"port": 1}, Unreachable),
        ({"initiator": "iqn.2026-11.io.onelun.host:node2"}, Conflict),
        ({"target": "../../etc"}, Rejected),
        ({"target": "iqn.2026-11.io:x\n"}, Rejected),
        ({"target": "iqn." + "x" * 300}, Rejected),
        ({"nas": "nas1/.."}, Rejected),
        ({"nas": ""}, Rejected),
        ({"zpool": ".."}, Rejected),
        ({"zvol": "one_1"}, Rejected),
        ({"zvol": "a/b"}, Rejected),
        ({"address": "127.0.0.1,file=/etc/shadow"}, Rejected),
        ({"address": "-oProxy"}, Rejected),
        ({"port": 0}, Rejected),
        ({"port": 70000}, Rejected),
        ({"user": None}, Rejected),
        ({"user": "a,b=c"}, Rejected),
        ({"secret": "line\nline"}, Rejected),
        ({"secret": ""}, Rejected),
        ({"uuid": "1"}, Rejected),
        ({"size_bytes": 0}, Rejected),
        ({"size_bytes": -512}, Rejected),
        ({"size_bytes": 1 << 60}, Rejected),
        ({"link": "/etc/passwd"}, Rejected),
        ({"link": "{root}/103/disk.0"}, Rejected),
        ({"link": "{root}/103/5/../../../disk.0"}, Rejected),
        ({"needs": ("identity",), "uuid": None}, Rejected),
        ({"needs": ("identity",), "size_bytes": None}, Rejected),
    ],
)
async def test_what_cannot_be_attached_leaves_nothing(
    bench: Bench, change: dict[str, object], error: type[OnelunError]
) -> None:
    bench.closed.add(Portal("127.0.0.1", 1))
    if "link" in change:
        change = {"link": str(change["link"]).replace("{root}", f"{bench.place}/datastores")}
    request = msgspec.structs.replace(bench.offer(link=bench.disk()), **change)

    with pytest.raises(error) as raised:
        await bench.ask(request)

    assert "another-secret" not in str(raised.value)
    assert await nothing_is_attached(bench)
    assert not os.path.lexists(bench.disk())


async def test_a_file_in_the_place_of_the_link_leaves_nothing_attached(bench: Bench) -> None:
    os.makedirs(os.path.dirname(bench.disk()))
    (bench.place / "datastores/103/5/disk.0").write_text("a whole disk")

    with pytest.raises(Conflict, match="no link"):
        await bench.ask(bench.offer(link=bench.disk()))

    assert await nothing_is_attached(bench)
    assert (bench.place / "datastores/103/5/disk.0").read_text() == "a whole disk"


async def test_a_link_to_what_is_none_of_onelun_s_is_not_turned(bench: Bench) -> None:
    os.makedirs(os.path.dirname(bench.disk()))
    os.symlink("/var/lib/one/datastores/1/image", bench.disk())

    with pytest.raises(Conflict, match="no device of onelun's: remove that link first"):
        await bench.ask(bench.offer(link=bench.disk()))

    assert await nothing_is_attached(bench)
    assert os.readlink(bench.disk()) == "/var/lib/one/datastores/1/image"


async def test_a_link_to_another_nas_s_device_that_is_gone_is_turned(bench: Bench) -> None:
    os.makedirs(os.path.dirname(bench.disk()))
    os.symlink(bench.device().replace("nas1", "nas2"), bench.disk())

    await bench.ask(bench.offer(link=bench.disk()))

    assert os.readlink(bench.disk()) == bench.device()


async def test_a_second_link_that_cannot_be_leaves_the_first(bench: Bench) -> None:
    request = bench.offer(link=bench.disk(0))
    await bench.ask(request)
    (bench.place / "datastores/103/5/disk.1").write_text("a whole disk")

    with pytest.raises(Conflict):
        await bench.ask(msgspec.structs.replace(request, link=bench.disk(1)))

    assert os.path.samefile(bench.disk(0), bench.place / "one-1")
    assert (await bench.ask(ListDev())).body[0]["links"] == [bench.disk(0)]


async def test_a_portal_that_is_closed_for_a_while_does_not_end_an_attachment(bench: Bench) -> None:
    request = bench.offer(link=bench.disk())
    await bench.ask(request)
    bench.closed.add(Portal("127.0.0.1", 3260))

    with pytest.raises(Unreachable):
        await bench.ask(request)

    assert os.path.samefile(bench.disk(), bench.place / "one-1")
    assert [row["links"] for row in (await bench.ask(ListDev())).body] == [[bench.disk()]]


# The seed's fields alone


async def test_the_seeds_fields_alone_connect_a_target_without_a_secret(bench: Bench) -> None:
    request = bench.offer()
    bench.targets[request.target] = msgspec.structs.replace(bench.targets[request.target], user="", secret="")

    reply = await bench.ask(SetZvol(target=request.target, nas="Storage.Example.org"))

    assert os.readlink(bench.place / f"dev/storage.example.org/{request.target}") == reply.bdev
    await bench.ask(TearDown(target=request.target))
    assert await nothing_is_attached(bench)


async def test_the_seeds_fields_alone_keep_the_name_that_a_device_has(bench: Bench) -> None:
    request = bench.offer()
    bench.targets[request.target] = msgspec.structs.replace(bench.targets[request.target], user="", secret="")
    first = await bench.ask(msgspec.structs.replace(request, user=None, secret=None))

    second = await bench.ask(SetZvol(target=request.target, nas="127.0.0.1"))

    assert first == second
    assert bench.names() == ["nas1", "nas1/tank", "nas1/tank/one-1"]
    assert (await bench.ask(ListDev())).body[0]["uuid"] == request.uuid


# At the same time


async def test_many_requests_for_one_volume_agree(bench: Bench) -> None:
    request = bench.offer(link=bench.disk())

    replies = await asyncio.gather(*(bench.ask(request) for _ in range(10)))

    assert len({reply.bdev for reply in replies}) == 1


async def test_attaching_and_detaching_at_the_same_time_ends_in_one_of_both(bench: Bench) -> None:
    request = bench.offer(link=bench.disk())

    for _ in range(20):
        await asyncio.gather(bench.ask(request), bench.ask(TearDown(target=request.target)), bench.ask(request))

        attached = (await bench.ask(ListDev())).body != []
        assert os.path.lexists(bench.device()) == os.path.lexists(bench.disk()) == attached


async def test_epochs_that_overtake_each_other_leave_the_last(bench: Bench) -> None:
    requests = [bench.offer(epoch=epoch) for epoch in (3, 1, 4, 2)]

    answers = await asyncio.gather(*(bench.ask(request) for request in requests), return_exceptions=True)

    assert [row["target"] for row in (await bench.ask(ListDev())).body] == [requests[2].target]
    assert {type(answer) for answer in answers if isinstance(answer, Exception)} <= {Conflict}
