"""Guests of libvirt's own test driver, frozen and thawed by the real virsh."""

import asyncio
import re

import pytest

from onelun.compute.guests import WHOLE, Guests
from onelun.errors import Rejected

# The test driver has one running guest of this name; each virsh has a libvirt of its own, so freezing is seen in the log.
GUEST = "test"
URI = "test:///default"
PAUSED = """<node><domain type="test" xmlns:test="http://libvirt.org/schemas/domain/test/1.0">
<name>test</name><memory>1024</memory><os><type>hvm</type></os><test:runstate>3</test:runstate></domain></node>"""


@pytest.fixture
def guests(tmp_path):
    return Guests(URI, str(tmp_path / "frozen"))


@pytest.fixture
def paused(tmp_path):
    """The URI of a libvirt whose guest of that name is paused."""
    (tmp_path / "node.xml").write_text(PAUSED)
    return f"test://{tmp_path}/node.xml"


@pytest.fixture
def called(caplog):
    """The verbs that virsh was called with."""
    caplog.set_level("DEBUG")
    return lambda: re.findall(r"argv=virsh .* (domfs\w+|suspend|resume) test status=0", caplog.text)


async def test_a_guest_is_frozen_until_it_is_thawed(guests, called, tmp_path):
    assert await guests.freeze(GUEST, 30) is None
    noted = (tmp_path / "frozen" / GUEST).exists()

    held = await guests.thaw(GUEST), await guests.thaw(GUEST)

    assert noted
    assert held == (True, False)
    assert called() == ["domfsfreeze", "domfsthaw"]
    assert not (tmp_path / "frozen" / GUEST).exists()


async def test_a_guest_without_an_agent_is_paused_until_it_goes_on(guests, called, paused, tmp_path):
    assert await guests.freeze(GUEST, 30, WHOLE) is None
    assert (tmp_path / "frozen" / GUEST).exists()
    guests._libvirt = paused

    assert await guests.thaw(GUEST) is True

    assert called() == ["suspend", "resume"]
    assert not (tmp_path / "frozen" / GUEST).exists()


async def test_a_guest_that_somebody_else_paused_is_left_alone(paused, called, tmp_path):
    guests = Guests(paused, str(tmp_path / "frozen"))

    assert await guests.freeze(GUEST, 30, WHOLE) == "it is paused"

    assert await guests.thaw(GUEST) is False
    assert called() == []


async def test_a_guest_that_goes_on_already_is_left_alone(guests, called):
    await guests.freeze(GUEST, 30, WHOLE)

    assert await guests.thaw(GUEST) is True

    assert called() == ["suspend"]


async def test_a_guest_that_nobody_thaws_thaws_by_itself(guests, called):
    assert await guests.freeze(GUEST, 0.1) is None

    async with asyncio.timeout(60):
        while called() != ["domfsfreeze", "domfsthaw"]:
            await asyncio.sleep(0.05)

    assert await guests.thaw(GUEST) is False


async def test_a_frozen_guest_is_not_frozen_for_another_and_stays_so(guests, called):
    await guests.freeze(GUEST, 30)

    assert "frozen for another snapshot" in await guests.freeze(GUEST, 30)

    assert called() == ["domfsfreeze"]
    assert await guests.thaw(GUEST) is True


async def test_an_agent_that_ends_leaves_no_guest_frozen(guests, called):
    await guests.freeze(GUEST, 30)

    await guests.release()

    assert called() == ["domfsfreeze", "domfsthaw"]


async def test_a_guest_that_cannot_be_thawed_is_left_to_the_next_agent(guests, tmp_path, monkeypatch):
    monkeypatch.setattr("onelun.compute.guests._PAUSE_S", 0.01)
    await guests.freeze(GUEST, 30)
    guests._libvirt = f"test://{tmp_path}/no.xml"

    assert await guests.thaw(GUEST) is False

    assert (tmp_path / "frozen" / GUEST).exists()


async def test_what_a_killed_agent_left_is_thawed_by_the_next(guests, called, tmp_path):
    (tmp_path / "frozen").mkdir()
    (tmp_path / "frozen" / GUEST).touch()

    guests.settle()

    async with asyncio.timeout(60):
        while (tmp_path / "frozen" / GUEST).exists():
            await asyncio.sleep(0.05)
    assert called() == ["domfsthaw"]


async def test_what_a_killed_agent_left_paused_goes_on_with_the_next(guests, called, paused, tmp_path):
    await guests.freeze(GUEST, 30, WHOLE)

    Guests(paused, str(tmp_path / "frozen")).settle()

    async with asyncio.timeout(60):
        while (tmp_path / "frozen" / GUEST).exists():
            await asyncio.sleep(0.05)
    assert called() == ["suspend", "resume"]


async def test_a_guest_that_is_not_there_and_a_libvirt_that_is_not_there_are_reasons(tmp_path):
    absent = await Guests(URI, str(tmp_path)).freeze("nosuch", 30)
    down = await Guests(f"test://{tmp_path}/no.xml", str(tmp_path)).freeze(GUEST, 30)

    assert "failed to get domain 'nosuch'" in absent
    assert "virsh failed with status 1" in down
    assert list(tmp_path.iterdir()) == []


async def test_a_freeze_that_is_given_up_is_undone(guests, called, tmp_path):
    freezing = asyncio.create_task(guests.freeze(GUEST, 30))
    async with asyncio.timeout(60):
        while not (tmp_path / "frozen" / GUEST).exists():
            await asyncio.sleep(0)

    freezing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await freezing

    assert called()[-1] == "domfsthaw"
    assert not (tmp_path / "frozen" / GUEST).exists()


@pytest.mark.parametrize("name", ["", "-c", "a b", "../x", "a/b", "a\n", "x" * 200])
async def test_what_is_no_name_of_a_guest_is_refused(guests, name):
    with pytest.raises(Rejected):
        await guests.freeze(name, 30)
