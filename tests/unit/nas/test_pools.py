"""Several pools of one NAS, and where a volume goes whose caller names none."""

import pytest

from onelun.config import Limits
from onelun.errors import CommandFailed
from onelun.model import Kind, Owner
from onelun.nas.backends.memory.backend import MemoryBackend
from onelun.nas.catalogue import Catalogue
from onelun.nas.maintenance import Maintenance
from onelun.nas.pools import Pools
from onelun.rpc.message import ListZvols, MapZvol

MIB = 1 << 20
AGENT = "0b6a4e0e-57a1-4d7c-9a64-4d9d5f1d7a10"
UUID = "6b2f7a52-6a04-4e9b-9d0b-3a2f0c0a7a11"


class GonePool(MemoryBackend):
    """A pool whose storage does not answer."""

    async def capacity(self):
        raise CommandFailed(f"pool {self.pool} is gone")


@pytest.fixture
def pools(tmp_path):
    catalogue = Catalogue(str(tmp_path / "catalogue.sqlite"))

    def make(*backends, default=None):
        by_name = {backend.pool: backend for backend in backends}
        return Pools(by_name, default, Limits(), Maintenance(catalogue, by_name))

    yield make
    catalogue.close()


def pool(name, mib):
    return MemoryBackend(name, total_bytes=mib * MIB)


async def test_the_only_pool_is_the_default_without_being_asked(pools):
    assert (await pools(GonePool("tank")).default()).pool == "tank"


async def test_the_configured_default_is_taken_however_full(pools):
    assert (await pools(pool("tank", 1), pool("lake", 900), default="tank").default()).pool == "tank"


async def test_without_a_default_the_pool_with_the_most_room_is_taken(pools):
    assert (await pools(pool("tank", 100), pool("lake", 900), pool("sea", 500)).default()).pool == "lake"


async def test_of_equal_pools_the_first_is_taken(pools):
    assert (await pools(pool("tank", 100), pool("lake", 100)).default()).pool == "tank"


async def test_room_is_what_is_free_and_not_promised_to_others(pools):
    tank, lake = pool("tank", 1000), pool("lake", 900)
    for one in (tank, lake):
        await one.open(AGENT, None)
    await tank.create("one-1", UUID, 200 * MIB, Owner(kind=Kind.PLAIN))
    both = pools(tank, lake)

    async with both.promise(tank, 200 * MIB, full=True):
        assert (await both.default()).pool == "lake"

    assert (await both.default()).pool == "tank"


async def test_a_pool_that_does_not_answer_is_passed_over(pools):
    assert (await pools(GonePool("tank", 900 * MIB), pool("lake", 100)).default()).pool == "lake"


async def test_without_any_pool_that_answers_the_caller_is_told(pools):
    with pytest.raises(CommandFailed, match="none of the pools tank, lake"):
        await pools(GonePool("tank"), GonePool("lake")).default()


async def test_a_caller_of_the_seed_gets_its_volume_from_the_pool_with_the_most_room(begin, parts):
    parts.others = {"lake": pool("lake", 1 << 30), "pond": pool("pond", 10)}
    nas = await begin()

    first = await nas.ask(MapZvol(zvol="vol-1", remotehost="node1", size_bytes=MIB))
    again = await nas.ask(MapZvol(zvol="vol-1", remotehost="node1", size_bytes=MIB))

    assert again == first
    (one,) = (await nas.ask(ListZvols())).body
    assert (one["zvol"], one["zpool"]) == ("vol-1", "lake")
