"""What docs/reconcile.md has an operator type to get a volume back from the trash, as it stands there, beside a running agent."""

import re
import subprocess
import time
from pathlib import Path

import pytest
from tests.support.pools import MIB, ready

from onelun.model import State

PAGE = Path(__file__).parents[2] / "docs/reconcile.md"
# What the page writes for the volume's name and UUID.
NAME, UUID = "one-7", "UUID"
LIMIT_S = 120


def section():
    return PAGE.read_text().partition("\n## Having it back\n")[2].partition("\n## ")[0]


def command_of(kind):
    """The command in the table's row of pools of that kind."""
    (found,) = re.findall(rf"^\| `{kind}` \| `([^`]+)` \|$", section(), re.MULTILINE)
    return found


def typed(command, pool, volume):
    """Type it, with this pool's place and this volume for the page's."""
    _, places = pool.documented()
    for there, here in ((UUID, volume.uuid), *places.items()):
        assert there in command or there == UUID, f"{command} does not name {there}"
        command = command.replace(there, here)
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=LIMIT_S)


@pytest.fixture
def kind(pool):
    if pool.documented() is None:
        pytest.skip("no operator sees this one")
    return pool.documented()[0]


async def trashed(pool, content=b"data"):
    volume = await ready(pool, NAME, content=content)
    await pool.backend.snapshot(volume, "s1")
    await pool.backend.trash(volume)
    assert await pool.backend.find(NAME) is None
    return volume


async def test_a_volume_comes_back_by_the_command_of_the_page(pool, kind):
    volume = await trashed(pool)

    done = typed(command_of(kind), pool, volume)

    assert done.returncode == 0, done.stderr
    assert await pool.backend.find(NAME) == volume
    assert await pool.read(volume, 0, 4) == b"data"
    assert [snapshot.name for snapshot in await pool.backend.snapshots(volume)] == ["s1"]
    assert await pool.backend.purge(time.time() + 1) == 0
    assert await pool.again().volumes() == [volume]


@pytest.mark.long
async def test_what_came_back_goes_into_the_trash_as_any_volume(pool, kind):
    volume = await trashed(pool)
    typed(command_of(kind), pool, volume)
    moment = time.time()

    await pool.backend.trash(volume)

    assert (await pool.backend.find_uuid(volume.uuid)).state is State.TRASH
    assert await pool.backend.purge(moment) == 0
    assert await pool.backend.purge(time.time() + 1) == 1


@pytest.mark.long
async def test_a_name_that_is_taken_is_seen_and_nothing_is_changed(pool, kind):
    volume = await trashed(pool)
    later = await ready(pool, NAME, size=2 * MIB)

    if kind == "lvm":
        (look,) = re.findall(r"`(lvs [^`]+)`", section())
        assert typed(look, pool, volume).stdout.split() == [f"onelun-{later.uuid}"]
        await pool.backend.trash(later)
        assert not typed(look, pool, volume).stdout.strip()
        return
    assert typed(command_of(kind), pool, volume).returncode != 0

    assert await pool.backend.find(NAME) == later
    assert (await pool.backend.find_uuid(volume.uuid)).state is State.TRASH
