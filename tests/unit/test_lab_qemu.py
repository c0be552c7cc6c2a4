"""What can be told of QEMU guests without one: the accelerator, versions, names in the cache, the command line."""

from __future__ import annotations

import os

import pytest
from tests.support.lab import zfs_modules
from tests.support.lab.machine import Guest
from tests.support.lab.place import Lab, LabError
from tests.support.lab.qemu import MACHINE
from tests.support.lab.qemu_accel import acceleration
from tests.support.lab.qemu_initramfs import load_order
from tests.support.lab.qemu_packages import PackageVersions, parse_versions

PLAN = """Reading package lists...
Inst busybox-static (1:1.35.0-4+deb12u1 Debian:12/oldstable [amd64])
Inst linux-image-6.1.0-56-cloud-amd64 (6.1.192-2 Debian-Security:12/oldstable-security [amd64]) []
Inst linux-image-cloud-amd64 (6.1.192-2 Debian-Security:12/oldstable-security [amd64])
Inst zfs-dkms [2.1.10-1] (2.1.11-1+deb12u1 Debian:12/oldstable [all])
Conf zfs-dkms (2.1.12-1 Debian:12/oldstable [all])
""".splitlines()


@pytest.fixture
def kvm(tmp_path) -> str:
    """A device that everybody may open."""
    path = tmp_path / "kvm"
    path.touch()
    return str(path)


def test_a_kvm_that_may_be_opened_is_used(kvm, tmp_path):
    assert "kvm" in acceleration(kvm, str(tmp_path))


def test_a_kvm_without_the_processors_support_is_not_used(kvm, tmp_path):
    (tmp_path / "kvm_pvm").mkdir()

    options = acceleration(kvm, str(tmp_path))

    assert "kvm" not in options
    assert "tcg" in options


def test_without_kvm_instructions_are_emulated(tmp_path):
    assert "tcg" in acceleration(str(tmp_path / "absent"), str(tmp_path))


def test_the_versions_are_those_that_apt_would_install():
    versions = parse_versions(PLAN)

    assert versions.release == "6.1.0-56-cloud-amd64"
    assert versions.kernel == "6.1.192-2"
    assert versions.of("zfs-dkms") == "2.1.11-1+deb12u1"


def test_a_package_that_the_sources_lack_is_named():
    with pytest.raises(LabError, match="zfs-dkms"):
        parse_versions(PLAN[:-2]).of("zfs-dkms")


def test_a_plan_without_a_kernel_is_refused():
    with pytest.raises(LabError, match="kernel image"):
        _ = PackageVersions({"linux-image-cloud-amd64": "6.1.192-2"}).release


@pytest.mark.parametrize(
    ("old", "new"), [("6.1.192-2", "6.1.193-1"), ("2.1.11-1", "2.1.11-2"), ("0-56-cloud", "0-57-cloud")]
)
def test_modules_of_other_versions_have_another_archive(old, new):
    before = zfs_modules.archive(parse_versions(PLAN))

    after = zfs_modules.archive(parse_versions([line.replace(old, new) for line in PLAN]))

    assert before != after


def test_an_archives_name_has_no_colon_since_tar_would_take_what_is_before_it_for_a_machine():
    versions = PackageVersions({"linux-image-6.1.0-56-cloud-amd64": "1:6.1", "zfs-dkms": "2:2.1"})

    assert ":" not in os.path.basename(zfs_modules.archive(versions))


def test_modules_are_loaded_after_what_they_need_and_once():
    dependencies = [
        "k/blk.ko: k/virtio.ko k/ring.ko\n",
        "k/net.ko: k/virtio.ko k/ring.ko\n",
        "k/virtio.ko: k/ring.ko\n",
        "k/ring.ko:\n",
    ]

    order = load_order(dependencies, ["blk", "net"])

    assert order == ["k/ring.ko", "k/virtio.ko", "k/blk.ko", "k/net.ko"]


def test_a_module_that_the_kernel_lacks_is_an_error():
    with pytest.raises(KeyError, match="virtiofs"):
        load_order(["k/blk.ko:"], ["virtiofs"])


@pytest.mark.parametrize(("upper", "nodes"), [(None, "/dev/vdc,/dev/vdd"), ("/lab/upper", "/dev/vdd,/dev/vde")])
def test_the_guest_is_told_which_disks_are_its_data_disks(upper, nodes):
    guest = Guest(Lab(7, "/lab"), "nas1", "qemu", disks=("/lab/one", "/lab/two"), upper=upper)

    argv = MACHINE.argv(guest, "/cache/root-1/root")

    parameters = argv[argv.index("-append") + 1].split()
    assert f"lab.disks={nodes}" in parameters
    assert ("lab.upper=/dev/vdc" in parameters) == (upper is not None)
    assert [word.partition("file=")[2].partition(",")[0] for word in argv if "file=" in word] == [
        "/cache/root-1/qemu/root.img",
        "/cache/root-1/qemu/modules.img",
        *([upper] if upper else []),
        "/lab/one",
        "/lab/two",
    ]


def test_no_guest_writes_to_what_all_guests_share():
    argv = MACHINE.argv(Guest(Lab(7, "/lab"), "nas1", "qemu", disks=("/lab/one",)), "/cache/root-1/root")

    shared = [word for word in argv if "/cache/root-1" in word and "file=" in word]

    assert len(shared) == 2
    assert all("readonly=on" in word for word in shared)
