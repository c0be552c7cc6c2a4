"""Which cloud a pool serves, when several ask at once."""

import asyncio

import pytest

from onelun.errors import Conflict
from onelun.nas.backends.zfs.ownership import Ownership
from onelun.nas.backends.zfs.properties import CLOUD, Facts, Value
from onelun.nas.backends.zfs.tree import Seen

ONE, OTHER = "4f2c1f0e-7a55-4c58-9b5c-0c7f3a6f1a01", "5a3d2a1f-8b66-4d69-8c6d-1d8a4b7a2b12"


class Storage:
    """A pool's dataset, in the place of both the tool and the tree."""

    pool = "tank"
    dataset = "rpool/onelun"

    def __init__(self):
        self.asked = []
        self.values = {}

    async def run(self, *argv):
        self.asked.append(argv[0])
        await asyncio.sleep(0)
        name, _, value = argv[1].partition("=")
        self.values[name] = Value(value, "local")

    async def look(self):
        self.asked.append("look")
        await asyncio.sleep(0)
        return Seen(Facts(self.dataset, dict(self.values)), (), {})


async def test_the_first_cloud_is_served_without_another_look():
    storage = Storage()
    seen = await storage.look()

    await Ownership(storage, storage).serve(seen, ONE)

    assert storage.asked == ["look", "set"]
    assert storage.values[CLOUD].text == ONE


async def test_of_two_clouds_at_once_one_is_served_and_the_other_is_refused():
    storage = Storage()
    owned = Ownership(storage, storage)
    seen = await storage.look()

    first, second, same = await asyncio.gather(
        owned.serve(seen, ONE), owned.serve(seen, OTHER), owned.serve(seen, ONE), return_exceptions=True
    )

    assert (first, same) == (None, None)
    assert isinstance(second, Conflict)
    assert storage.values[CLOUD].text == ONE


async def test_a_cloud_that_could_not_be_written_down_is_looked_for_again():
    storage = Storage()
    owned = Ownership(storage, storage)
    seen = await storage.look()
    run, storage.run = storage.run, refuse

    with pytest.raises(OSError, match="full"):
        await owned.serve(seen, ONE)
    storage.run = run
    await owned.serve(seen, OTHER)

    assert storage.values[CLOUD].text == OTHER


async def refuse(*_):
    raise OSError("full")
