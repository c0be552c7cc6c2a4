"""What qemu-img, qemu-io and OpenNebula's own drivers print, and images themselves, damaged or hostile."""

from __future__ import annotations

import json
import os
import struct
from types import SimpleNamespace

import pytest
from hypothesis import strategies as st
from tests.support.fuzzing import Loop, attacks, refusable
from tests.support.mutation import as_bytes, blobs, texts, values

from onelun.beneath import Owner
from onelun.compute import qcow2
from onelun.deadline import Deadline
from onelun.driver import backupstore, formats
from onelun.driver.importing import _Progress

INFO = {"virtual-size": 1 << 30, "filename": "json:", "format": "qcow2", "actual-size": 4096, "dirty-flag": False}
VMDK = b'# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicSparse"\n'
HEADS = (
    struct.pack(">4sIQIIQIIQQIIQQQQ", b"QFI\xfb", 3, 0, 0, 16, 1 << 30, 0, 16, 196608, 65536, 1, 1, 0, 0, 0, 0)
    + bytes(4096),
    (b"KDMV" + struct.pack("<IIQQQQ", 1, 3, 2048, 128, 1, 2)).ljust(512, b"\0") + VMDK.ljust(1024, b"\0"),
    b"vhdxfile" + bytes(1024),
    b"\x1f\x8b\x08" + bytes(100),
    bytes(1024),
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory):
    descriptor = os.open(tmp_path_factory.mktemp("image") / "image", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


@attacks(
    "tools",
    blobs(HEADS),
    st.one_of(values([INFO]).map(json.dumps), texts([json.dumps(INFO)])),
    st.sampled_from([0, 0, 0, 1]),
)
def test_an_image_is_told_or_refused(loop: Loop, tools, file: int, content: bytes, told: str, status: int) -> None:
    tools.say(told, told[:100], status)
    os.ftruncate(file, 0)
    os.pwrite(file, content, 0)

    formats.compression_of(content)
    found = loop.run(formats.inspect(file, 16384))
    assert 0 < found.size_bytes <= 16384 << 30
    loop.run(formats.check_intact(file, found.format, 5.0))


IO = "read 4096/4096 bytes at offset 0\n4 KiB, 1 ops; 0.0000 sec\nwrote 65536/65536 bytes at offset 65536\n"
PERCENT = "    (0.00/100%)\r    (12.34/100%)\r    (100.00/100%)\r"


@attacks("tools", texts([IO, PERCENT]), st.sampled_from([0, 0, 1]))
def test_progress_of_qemu(loop: Loop, tools, text: str, status: int) -> None:
    tools.say(text, text[:100], status)
    disk = qcow2.Disk({"driver": "file", "filename": "/a,b"}, 1 << 20)
    how = (1, Owner(0, 0), Deadline.after(5), lambda done, total: None)

    refusable(loop, qcow2.write_full(disk, *how))
    refusable(loop, qcow2.write_increment(disk, [(0, 4096, True), (65536, 65536, False)], *how))
    _Progress(SimpleNamespace(progress=lambda _: None), "nas1/tank/one-1")(as_bytes(text))


URLS = {"0": "restic://104/6/0:9eb0df65,1:b3d5/var/lib/one/backup/disk.0.0", "1": "rsync://104/6/1:d0/disk.1.0"}


@attacks("tools", st.one_of(values([URLS]).map(json.dumps), texts([json.dumps(URLS)])), st.sampled_from([0, 0, 0, 1]))
def test_disks_of_a_backup(loop: Loop, tools, tmp_path_factory: pytest.TempPathFactory, text: str, status: int) -> None:
    remotes = tmp_path_factory.getbasetemp() / "remotes"
    (remotes / "datastore/restic").mkdir(parents=True, exist_ok=True)
    (remotes / "datastore/restic/ls").touch()
    tools.say(text, text[:100], status)
    run = SimpleNamespace(config=SimpleNamespace(remotes=str(remotes), max_image_gib=1), deadline=Deadline.after(5))

    for disk_id, url in loop.run(backupstore.disks_of(run, "restic", -1, "<A/>")).items():
        assert disk_id >= 0
        assert url.isascii()
        assert url.isprintable()
        backupstore.is_in_backup(url)


@attacks("tools", texts(['export BACKUP_BASE_PATH="/var/lib/one/backups/"\n', "BACKUP_BASE_PATH=/a\n#x\n"]))
def test_settings_of_opennebula(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    place = tmp_path_factory.getbasetemp() / "settings" / "etc/datastore"
    place.mkdir(parents=True, exist_ok=True)
    (place / "datastore.conf").write_bytes(as_bytes(text))

    backupstore.base_path(str(place.parents[1]))
