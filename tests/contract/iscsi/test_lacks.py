"""What a host lacks, or has set so that it would do harm."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.blocks import leftovers, run
from tests.support.iscsi_connecting import groups, iscsiadm
from tests.support.iscsi_open import (
    OpenIscsiLab,
    without_iscsid,
)
from tests.support.requires import guest

from onelun.compute.connectors.iscsi.connector import IscsiConnector
from onelun.errors import CommandFailed

pytestmark = guest("iscsi")


async def test_a_host_that_has_everything_lacks_nothing(node1: IscsiConnector) -> None:
    assert await node1.check() == []


async def test_iscsid_that_is_gone_is_one_sentence(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = iscsi.offer("one-1", "node1")

    with without_iscsid():
        assert ["iscsid is not running" in line for line in await node1.check()] == [True]
        with pytest.raises(CommandFailed, match="iscsid is not running: systemctl"):
            await node1.connect(export)

    assert leftovers(iscsi) == []


async def test_lvm_that_looks_into_disks_of_vms_is_named(node1: IscsiConnector) -> None:
    configuration = Path("/etc/lvm/lvmlocal.conf")
    kept = configuration.read_text()
    configuration.write_text("devices {\n scan_lvs = 0\n}\n")
    try:
        assert ["global_filter" in line for line in await node1.check()] == [True]
    finally:
        configuration.write_text(kept)


async def test_lvm_finds_no_volume_group_of_a_vm(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    device = await node1.connect(iscsi.offer("one-1", "node1"))
    everything = ("--config", 'devices { global_filter = [ "a|.*|" ] }')
    run("pvcreate", "-qq", "--yes", *everything, device)
    run("vgcreate", "-qq", *everything, "of-a-vm", device)
    run("udevadm", "settle", "--timeout=20")

    assert "of-a-vm" not in groups()
    assert "of-a-vm" in groups(*everything)


async def test_a_record_that_would_log_in_at_boot_is_named(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = iscsi.offer("one-1", "node1")
    await node1.connect(export)
    iscsiadm(
        "-m",
        "node",
        "-T",
        export.iqn,
        "-p",
        str(iscsi.portal),
        "--op",
        "update",
        "-n",
        "node.startup",
        "-v",
        "automatic",
    )

    assert [export.iqn in line for line in await node1.check()] == [True]

    await node1.disconnect(export.iqn)
    assert leftovers(iscsi) == []
