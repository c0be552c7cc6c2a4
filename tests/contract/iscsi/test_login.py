"""Logging in: the record, the secret, the portal, and what keeps a login from ending in time."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import msgspec
import pytest
from tests.support.blocks import content, leftovers, read, write
from tests.support.cable import Cable
from tests.support.iscsi import MIB, SECRET
from tests.support.iscsi_connecting import by, iscsiadm, open_up
from tests.support.iscsi_open import (
    OpenIscsiLab,
    records,
    sessions,
)
from tests.support.requires import guest

from onelun.compute.connectors.iscsi.connector import IscsiConnector
from onelun.errors import NotFound, OnelunError, Unreachable
from onelun.model import Portal

pytestmark = guest("iscsi")


async def test_one_connect_is_one_login_and_no_discovery(
    iscsi: OpenIscsiLab, node1: IscsiConnector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    export = iscsi.offer("one-1", "node1")

    await node1.connect(export)
    await node1.connect(export)

    asked = [line for line in caplog.messages if line.startswith("command argv=iscsiadm")]
    assert len(asked) == 1
    assert asked[0].startswith(f"command argv=iscsiadm -m node -T {export.iqn} -p {iscsi.portal} --login ")
    scans = [line for line in caplog.messages if "scsi_host" in line]
    assert len(scans) == 1
    assert len(sessions("node1")) == 1


async def test_a_session_is_of_our_initiator_and_not_of_the_hosts_own(
    iscsi: OpenIscsiLab, node1: IscsiConnector
) -> None:
    own = Path("/etc/iscsi/initiatorname.iscsi").read_text()
    export = iscsi.offer("one-1", "node1")
    assert export.initiator not in own

    await node1.connect(export)

    assert export.initiator in iscsi.sessions()


async def test_nothing_shows_the_secret(
    iscsi: OpenIscsiLab, node1: IscsiConnector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    export = iscsi.offer("one-1", "node1")

    await node1.connect(export)
    await node1.disconnect(export.iqn)
    with pytest.raises(OnelunError) as caught:
        await node1.connect(msgspec.structs.replace(export, secret="another-secret-16"))

    assert any("iscsiadm" in line for line in caplog.messages)
    assert SECRET not in caplog.text
    assert "another-secret-16" not in caplog.text + caught.value.sentence


async def test_a_record_is_roots_alone_and_logs_in_only_when_asked(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    await node1.connect(iscsi.offer("one-1", "node1"))

    (path,) = records("node1")
    shown = iscsiadm("-m", "node", "-T", Path(path).parent.name, "-p", str(iscsi.portal))

    assert os.stat(path).st_mode & 0o777 == 0o600
    assert "node.startup = manual" in shown
    assert "node.session.scan = manual" in shown
    assert "node.session.timeo.replacement_timeout = 86400" in shown
    assert "node.session.auth.authmethod = CHAP" in shown
    assert "iface.iscsi_ifacename = onelun.node1" in shown


async def test_a_portal_in_another_spelling_is_the_same_session(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    with Cable(iscsi.portal, "::1") as cable:
        export = by(cable, iscsi.offer("one-1", "node1"))
        device = await node1.connect(export)
        spelt = Portal("0:0:0:0:0:0:0:1", cable.portal.port)

        again = await node1.connect(msgspec.structs.replace(export, portal=spelt))

        assert again == device
        assert len(sessions("node1")) == 1
        await node1.disconnect(export.iqn)


async def test_a_session_with_an_old_secret_is_made_anew(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = iscsi.offer("one-1", "node1")
    await node1.connect(export)
    before = sessions("node1")
    # As an account of tgt does, the new one counts from the next login.
    other = iscsi.account(export, "one-1-other", "another-secret-16")

    device = await node1.connect(other)

    assert sessions("node1") != before
    assert len(sessions("node1")) == len(records("node1")) == 1
    assert len(read(device, 512)) == 512


async def test_a_session_with_an_old_secret_stays_while_it_is_in_use(
    iscsi: OpenIscsiLab, node1: IscsiConnector
) -> None:
    export = iscsi.offer("one-1", "node1")
    device, descriptor = await open_up(node1, export)
    before = sessions("node1")

    again = await node1.connect(iscsi.account(export, "one-1-other", "another-secret-16"))

    assert (again, sessions("node1")) == (device, before)
    assert len(os.pread(descriptor, 512, 0)) == 512
    os.close(descriptor)


async def test_an_absent_lun_is_not_found_in_time(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    export = msgspec.structs.replace(iscsi.offer("one-1", "node1"), lun=7)
    begun = time.monotonic()

    with pytest.raises(NotFound, match="LUN 7"):
        await node1.connect(export)

    assert time.monotonic() - begun < 25
    assert leftovers(iscsi) == []


async def test_a_portal_that_takes_connections_and_says_nothing_is_unreachable(
    iscsi: OpenIscsiLab, node1: IscsiConnector, cable: Cable
) -> None:
    cable.cut()
    begun = time.monotonic()

    with pytest.raises(Unreachable, match="answers no login"):
        await node1.connect(by(cable, iscsi.offer("one-1", "node1")))

    assert time.monotonic() - begun < 25
    assert leftovers(iscsi) == []


@pytest.mark.timeout(300)
async def test_a_dead_portal_holds_up_no_other(iscsi: OpenIscsiLab, node1: IscsiConnector, cable: Cable) -> None:
    cable.cut()
    dead = [by(cable, iscsi.offer(f"one-{number}", "node1", size=MIB)) for number in range(100, 112)]
    good = [iscsi.offer(f"one-{number}", "node1", size=MIB) for number in range(4)]
    failing = [asyncio.create_task(node1.connect(export)) for export in dead]

    connected = await asyncio.gather(*(node1.connect(export) for export in good))

    assert len(set(connected)) == 4
    answers = await asyncio.gather(*failing, return_exceptions=True)
    assert all(isinstance(answer, Unreachable) for answer in answers)
    assert len(sessions("node1")) == len(records("node1")) == 4


@pytest.mark.timeout(600)
@pytest.mark.long
async def test_fifty_targets_come_and_go_at_once(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    exports = [iscsi.offer(f"one-{number}", "node1", size=MIB) for number in range(50)]

    connected = await asyncio.gather(*(node1.connect(export) for export in exports))

    assert len(set(connected)) == len(sessions("node1")) == len(records("node1")) == 50
    for number, (device, export) in enumerate(zip(connected, exports, strict=True)):
        write(device, bytes([number]) * 512)
        assert content(iscsi.backing(export))[:512] == bytes([number]) * 512
    await asyncio.gather(*(node1.disconnect(export.iqn) for export in exports))
    assert leftovers(iscsi) == []


@pytest.mark.parametrize("delay_ms", [0, 5, 20, 50, 100, 150, 200, 300, 400, 600, 900])
async def test_a_cancelled_connect_leaves_nothing(iscsi: OpenIscsiLab, node1: IscsiConnector, delay_ms: int) -> None:
    export = iscsi.offer("one-1", "node1")
    connecting = asyncio.create_task(node1.connect(export))
    await asyncio.sleep(delay_ms / 1000)

    connecting.cancel()
    await asyncio.wait([connecting])

    if not connecting.cancelled():
        await node1.disconnect(export.iqn)
    assert leftovers(iscsi) == []
    assert len(read(await node1.connect(export), 512)) == 512


async def test_a_lock_that_a_killed_iscsiadm_left_is_broken(iscsi: OpenIscsiLab, node1: IscsiConnector) -> None:
    Path("/run/lock/iscsi").mkdir(parents=True, exist_ok=True)
    Path("/run/lock/iscsi/lock").touch()
    os.link("/run/lock/iscsi/lock", "/run/lock/iscsi/lock.write")
    await asyncio.sleep(10.5)

    device = await node1.connect(iscsi.offer("one-1", "node1"))

    assert len(read(device, 512)) == 512
