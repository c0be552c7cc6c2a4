"""The secrets of targets: long ones for new targets, and for those of earlier releases what their hosts logged in with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from onelun.model import Kind, Owner
from onelun.naming import Source, epoch_of, target_iqn
from onelun.nas.exporters import rules
from onelun.nas.identity import Identity
from onelun.rpc import message as m

from .conftest import CLOUD, MIB

IMAGE = Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=1)
CREATE = m.CreateZvol(zvol="one-1", zpool="tank", size_bytes=MIB, owner=IMAGE)
MAP = m.MapZvol(zvol="one-1", zpool="tank", remotehost="node1", cloud=CLOUD, vm=3, disk=0, path="/x/3/disk.0")
SOURCE = Source("nas1", "tank", "one-1")
# What the release before these secrets derived from this key.
KEY = "00" * 32
BEFORE = "iqn.2026-11.io.onelun.nas1:tank.one-1.e200001"
BEFORE_SECRET = "6951a972a1094180"


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    (tmp_path / "key").write_text(KEY + "\n")
    return Identity(str(tmp_path))


def test_a_target_of_an_earlier_release_keeps_its_secret(identity: Identity) -> None:
    assert identity.secret_of(BEFORE) == BEFORE_SECRET


def test_a_new_target_has_a_secret_of_96_bits_in_16_characters(identity: Identity) -> None:
    secrets = [identity.secret_of(target_iqn(SOURCE, 10_000_000_000_000 + count)) for count in range(20_000)]

    assert len(set(secrets)) == len(secrets)
    assert {len(secret) for secret in secrets} == {16}
    assert all(rules._SECRET.fullmatch(secret) for secret in secrets)
    assert len(set("".join(secrets))) == 64
    assert not [secret for secret in secrets if re.match("0|N", secret)]


async def test_after_an_upgrade_a_host_logs_in_with_what_it_has_and_the_next_attachment_has_a_long_secret(
    begin, parts
) -> None:
    with pytest.MonkeyPatch.context() as earlier:
        earlier.setattr("onelun.nas.epochs._LONG_SECRETS_FROM", 0)
        earlier.setattr("onelun.nas.identity.has_long_secret", lambda _: False)
        nas = await begin()
        await nas.ask(CREATE)
        await nas.ask(MAP)
    [held] = nas.nodes["node1"].connected.values()
    assert held.target.endswith(".e100001")

    # As after a reboot of the NAS.
    await parts.exporter.unexport(held.target)
    again = await begin()

    parts.exporter.log_in(held.target, held.initiator, held.secret)
    await again.ask(m.UnmapZvol(zvol="one-1", zpool="tank", cloud=CLOUD, vm=3, disk=0, path=MAP.path))
    await again.ask(MAP)
    [held] = again.nodes["node1"].connected.values()
    assert epoch_of(held.target) == 10_000_000_000_001
    assert not re.fullmatch("[0-9a-f]{16}", held.secret)
    parts.exporter.log_in(held.target, held.initiator, held.secret)
