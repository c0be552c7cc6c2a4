"""What a compute agent reads of its own files, of sysfs and of tools, damaged: found by scripts/fuzz."""

import pytest
from tests.support.sysfs import build, put

from onelun import command
from onelun.calls import Calls
from onelun.compute import qcow2
from onelun.compute.attachments import Attachments
from onelun.compute.connectors import login
from onelun.compute.connectors.base import Export
from onelun.compute.connectors.iscsi.disk import Disks
from onelun.compute.connectors.iscsi.notes import Notes
from onelun.compute.connectors.iscsi.sysfs import Sysfs, device_number
from onelun.compute.connectors.userspace import connector
from onelun.compute.readiness import Readiness
from onelun.errors import ProtocolError
from onelun.model import Portal

NO_TEXT = b'{"iqn":"\xff"}'
LONG = "9" * 5000


def test_files_that_are_no_text_are_as_good_as_none(tmp_path):
    for name in ("a.json", "iqn.a", "state", "nas.json"):
        (tmp_path / name).write_bytes(NO_TEXT if name != "nas.json" else b'["\xff"]')

    assert Attachments(str(tmp_path)).all() == []
    assert Notes(str(tmp_path)).get("iqn.a") is None
    assert connector._load(str(tmp_path)) is None
    assert Readiness(str(tmp_path / "nas.json"))._awaited == set()


@pytest.mark.parametrize("name", ["type", "block/sda/size", "block/sda/dev"])
def test_a_number_in_sysfs_that_is_none_is_unknown(tmp_path, name):
    root = build(tmp_path)
    put(
        root / "devices/platform/host0/session7/target0:0:0/0:0:0:1" / name,
        LONG if name != "block/sda/dev" else f"8:{LONG}",
    )
    sysfs = Sysfs(str(root))

    disk = sysfs.disks(sysfs.sessions()[0])[1]

    assert {
        "type": disk.kind == -1,
        "block/sda/size": disk.size_bytes == 0,
        "block/sda/dev": device_number(disk) is None,
    }[name]


@pytest.mark.parametrize("printed", ["", "\n", "many", LONG])
async def test_a_size_that_no_tool_tells_is_an_error(monkeypatch, tmp_path, printed):
    async def run(*argv, **_):
        return command.Result(0, printed, "")

    async def make(self, *_, **options):
        return printed

    async def probe(portal):
        return None

    monkeypatch.setattr(command, "run", run)
    monkeypatch.setattr(Calls, "make", make)
    monkeypatch.setattr(login, "probe", probe)
    sysfs = Sysfs(str(build(tmp_path)))

    with pytest.raises(ProtocolError, match="no number"):
        await login.identify(Export("iqn.a", Portal("127.0.0.1"), "iqn.b", lun=1))
    with pytest.raises(ProtocolError, match="no number"):
        await Disks(sysfs, Calls()).identity(sysfs.disks(sysfs.sessions()[0])[1])


def test_progress_that_is_none_is_passed_over():
    told = []
    seen = qcow2._Percent(lambda done, total: told.append(done))

    seen(b"(1.2.3/100%)(.../100%)")
    seen(b"(12.34/100%)")

    assert told == [1234]
