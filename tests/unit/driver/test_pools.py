"""Which pool a new image goes to."""

import logging
from types import SimpleNamespace

import pytest
from tests.support.fake_nas import GIB, Cloud, Volume

from onelun.deadline import Deadline
from onelun.driver.pools import choose
from onelun.errors import Cancelled, InMaintenance, OutOfSpace, Unreachable
from onelun.model import Kind, Owner
from onelun.rpc import message as m

POOLS = [("nas1", "tank"), ("nas1", "fast"), ("nas2", "tank")]
IMAGE = Owner(kind=Kind.IMAGE, image_id=9)


@pytest.fixture
def cloud():
    return Cloud({"nas1": {"tank": 100 * GIB, "fast": 300 * GIB}, "nas2": {"tank": 200 * GIB}})


def run(cloud, *, attempt=0):
    """A run of an action that asks the cloud."""

    async def ask(node, request, kind):
        return await cloud.ask(node, request, deadline=Deadline.after(10))

    return SimpleNamespace(call=SimpleNamespace(attempt=attempt), ask=ask, note=logging.getLogger("note").warning)


async def test_of_all_pools_the_one_with_the_most_room_is_taken(cloud):
    assert await choose(run(cloud), POOLS, GIB, "one-9") == ("nas1", "fast")


async def test_the_order_of_the_names_decides_among_equals(cloud):
    cloud.free["nas2", "tank"] = 300 * GIB

    assert await choose(run(cloud), POOLS, GIB, "one-9") == ("nas1", "fast")
    assert await choose(run(cloud), POOLS[::-1], GIB, "one-9") == ("nas2", "tank")


async def test_what_is_begun_again_stays_where_its_volume_is_already(cloud):
    cloud.volumes["nas1", "tank", "one-9"] = Volume(GIB, IMAGE)

    assert await choose(run(cloud, attempt=1), POOLS, GIB, "one-9") == ("nas1", "tank")


async def test_what_is_begun_again_before_it_made_anything_chooses_anew(cloud):
    assert await choose(run(cloud, attempt=1), POOLS, GIB, "one-9") == ("nas1", "fast")


async def test_a_pool_that_is_passed_over_is_told(cloud, caplog):
    cloud.fail("nas2", m.PoolCapacity, Unreachable("nobody serves nas2"))

    assert await choose(run(cloud), POOLS, GIB, "one-9") == ("nas1", "fast")

    assert "passing over nas2/tank: nobody serves nas2" in caplog.text


async def test_a_cancelled_action_takes_no_pool(cloud):
    cloud.fail("nas2", m.PoolCapacity, Cancelled("somebody gave it up"))

    with pytest.raises(Cancelled):
        await choose(run(cloud), POOLS, GIB, "one-9")


async def test_what_will_be_filled_from_a_volume_goes_to_that_one_s_pool(cloud):
    cloud.volumes["nas2", "tank", "one-3"] = Volume(GIB, IMAGE)

    assert await choose(run(cloud), POOLS, GIB, "one-9", beside="one-3") == ("nas2", "tank")
    assert await choose(run(cloud), POOLS, GIB, "one-9", beside="one-4") == ("nas1", "fast")


async def test_a_pool_that_may_have_the_volume_is_not_passed_over(cloud):
    cloud.fail("nas2", m.ListZvols, Unreachable("nobody serves nas2"))

    with pytest.raises(Unreachable):
        await choose(run(cloud), POOLS, GIB, "one-9", beside="one-3")


async def test_a_pool_in_maintenance_is_passed_over_and_told(cloud, caplog):
    cloud.maintenance["nas1", "fast"] = "pool fast is in maintenance (new disks): nothing new is placed there"

    assert await choose(run(cloud), POOLS, GIB, "one-9") == ("nas2", "tank")

    assert "passing over nas1/fast: pool fast is in maintenance (new disks)" in caplog.text


async def test_where_all_pools_are_in_maintenance_each_is_named(cloud):
    for nas, pool in POOLS:
        cloud.maintenance[nas, pool] = f"pool {pool} is in maintenance: nothing new is placed there"

    with pytest.raises(InMaintenance) as raised:
        await choose(run(cloud), POOLS[1:], GIB, "one-9")

    assert raised.value.sentence == (
        "on nas1, pool fast is in maintenance: nothing new is placed there;"
        " on nas2, pool tank is in maintenance: nothing new is placed there"
    )


async def test_what_fits_into_no_pool_that_is_left_is_out_of_space(cloud):
    cloud.maintenance["nas1", "fast"] = "pool fast is in maintenance: nothing new is placed there"

    with pytest.raises(
        OutOfSpace, match=r"nas1/tank has 100.0 GiB free, nas2/tank has 200.0 GiB free; on nas1, pool fast"
    ):
        await choose(run(cloud), POOLS, 250 * GIB, "one-9")
