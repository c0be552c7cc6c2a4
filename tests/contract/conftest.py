"""The engines that the suites run on: each is one line here, and a class in a file of tests/support."""

import importlib
import secrets
import uuid as uuids

import pytest
from tests.support.iscsi import lab as make_lab
from tests.support.pools import AGENT, CLOUD, MIB
from tests.support.requires import guest

from onelun.model import Target
from onelun.naming import Source, target_account, target_iqn

_MACHINE = "tests.support.pools_memory_file"
BACKENDS = [
    pytest.param(f"{_MACHINE}:Memory", id="memory"),
    pytest.param(f"{_MACHINE}:Directory", id="directory"),
    pytest.param(f"{_MACHINE}:Ext4", id="ext4"),
    pytest.param(f"{_MACHINE}:Xfs", id="xfs"),
    pytest.param(f"{_MACHINE}:Btrfs", id="btrfs"),
    # Each act is a process, and an emulated machine starts few of them a second.
    pytest.param("tests.support.pools_zfs:Zfs", id="zfs", marks=[guest("zfs"), pytest.mark.timeout(900)]),
    pytest.param("tests.support.pools_lvm:Lvm", id="lvm", marks=guest("lvm")),
]
EXPORTERS = [
    pytest.param("tests.support.targets:MemoryNas", id="memory"),
    pytest.param("tests.support.targets:TgtNas", id="tgt"),
    pytest.param("tests.support.targets_lio:LioNas", id="lio", marks=guest("lio")),
]
CONNECTORS = [
    pytest.param("tests.support.iscsi:MemoryLab", id="memory"),
    pytest.param("tests.support.iscsi:TgtLab", id="userspace"),
    pytest.param("tests.support.iscsi_open:OpenIscsiLab", id="iscsi", marks=guest("iscsi")),
    pytest.param("tests.support.iscsi_lio:LioLab", id="iscsi-lio", marks=guest("iscsi", "lio")),
]


def named(text):
    """The class that `module:Class` names; its module may be of use in a guest alone."""
    module, _, name = text.partition(":")
    return getattr(importlib.import_module(module), name)


@pytest.fixture(scope="module", params=BACKENDS)
def place(request, tmp_path_factory):
    """The engine's medium."""
    with named(request.param)(tmp_path_factory.mktemp("place")) as made:
        yield made


@pytest.fixture
def medium(place):
    """A fresh pool on it."""
    with place.fresh() as fresh:
        yield fresh


@pytest.fixture
async def pool(medium):
    """The pool, opened by its agent."""
    await medium.backend.open(AGENT, CLOUD)
    return medium


@pytest.fixture(params=EXPORTERS)
async def nas(request, tmp_path):
    """A NAS's target daemon."""
    made = named(request.param)(tmp_path / "nas")
    try:
        yield made
    finally:
        await made.let_go()
        made.close()


@pytest.fixture
def target(tmp_path):
    """Make a volume's file and the target that offers it."""

    def make(
        volume="one-1", *, epoch=1, initiator="iqn.2026-11.io.onelun.host:node1", size=MIB, readonly=False, uuid=None
    ):
        device = tmp_path / volume
        if not device.exists():
            with device.open("wb") as file:
                file.truncate(size)
        iqn = target_iqn(Source("nas1", "tank", volume), epoch)
        return Target(
            iqn=iqn,
            device=str(device),
            uuid=uuid or str(uuids.uuid4()),
            size_bytes=size,
            initiator=initiator,
            user=target_account(iqn),
            secret=secrets.token_hex(8),
            readonly=readonly,
        )

    return make


@pytest.fixture(params=CONNECTORS)
def lab(request):
    """Targets, and hosts that may connect them."""
    with make_lab(named(request.param)) as made:
        yield made
