"""What LVM and the kernel print, damaged: found by scripts/fuzz."""

import json

import pytest

from onelun import command
from onelun.calls import Calls
from onelun.errors import CommandFailed, ProtocolError
from onelun.model import Kind, Owner, State, Volume
from onelun.nas.backends.lvm.backend import LvmBackend
from onelun.nas.backends.lvm.devices import Devices, read_status
from onelun.nas.backends.lvm.listing import Reader, Row, volume_lv
from onelun.nas.backends.lvm.tags import PoolFacts, VolumeFacts, pool_tags, volume_tags
from onelun.nas.backends.lvm.thinpool import geometry_of
from onelun.nas.backends.lvm.tool import Lvm
from onelun.nas.backends.lvm.usage import parsed

UUID = "0b6a4e0e-57a1-4d7c-9a64-4d9d5f1d7a10"


@pytest.fixture
def printed(monkeypatch):
    """Have every program print that."""

    def say(text):
        async def run(*argv, **_):
            return command.Result(0, text, "")

        monkeypatch.setattr(command, "run", run)

    return say


@pytest.mark.parametrize("rows", [[{"lv_name": "a"}], [{"lv_name": "a", "thin_id": "1"}, {"thin_id": "2"}]])
async def test_a_report_without_a_column_is_none(printed, rows):
    printed(json.dumps({"report": [{"lv": rows}]}))

    with pytest.raises(ProtocolError, match="has no"):
        await Lvm("tank", "vg0", udev_s=1).report("lvs", "lv_name,thin_id", "vg0")


async def test_a_report_without_the_pool_tells_no_capacity(printed):
    printed('{"report": []}')

    with pytest.raises((ProtocolError, CommandFailed)):
        await LvmBackend("tank", "vg0", "pool")._pool.geometry()


@pytest.mark.parametrize(("extent", "chunk"), [("", "65536"), ("4.00m", "65536"), ("4194304", "thin-pool"), ("0", "0")])
def test_sizes_that_are_none_are_refused(extent, chunk):
    with pytest.raises(ProtocolError):
        geometry_of({"vg_extent_size": extent, "chunk_size": chunk})


@pytest.mark.parametrize("size", ["", "1.00g", "\u00b2", "9" * 5000])
def test_a_volume_whose_size_is_no_number_is_an_error_and_not_absent(size):
    volume = Volume("tank", "one-1", UUID, 1 << 20, State.READY, Owner(kind=Kind.PLAIN))
    rows = [
        Row("pool", "1", ",".join(pool_tags(PoolFacts(owner=UUID))), ""),
        Row(volume_lv(UUID), size, ",".join(volume_tags(VolumeFacts(volume))), "pool"),
    ]

    with pytest.raises(ProtocolError, match="lv_size of vg0/onelun-"):
        Reader("tank", "vg0", "pool").listing(rows)


def test_digits_of_other_scripts_are_none():
    with pytest.raises(ProtocolError):
        parsed("1 \u00b2 0\n")
    assert read_status(f"vg0-pool: 0 1 thin-pool 7 1/{'9' * 5000} 1/2 - rw -\n", "vg0-pool") is None


async def test_a_count_of_openers_that_is_none_is_no_count(printed):
    printed("\u00b2\n")

    assert await Devices(Lvm("tank", "vg0", udev_s=1), Calls(), "pool", udev_s=1).opened("a") is None
