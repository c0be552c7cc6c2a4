"""What a host lacks for the data path in user space is named with what to install."""

import os
import subprocess
import sys

from tests.support.requires import requires

from onelun.compute.connectors.userspace import needs
from onelun.compute.connectors.userspace.needs import lacking, lacking_nodes, lacking_programs

LIB = needs.__file__.removesuffix("/onelun/compute/connectors/userspace/needs.py")


def test_programs_that_are_missing_are_named_once_a_package(tmp_path):
    (tmp_path / "there").write_text("#!/bin/sh\n")
    (tmp_path / "there").chmod(0o755)

    found = lacking_programs({"there": "a", "one": "b", "other": "b", "third": "c"}, path=str(tmp_path))

    assert found == [
        "one and other cannot be found: install the package b",
        "third cannot be found: install the package c",
    ]


def test_device_nodes_that_are_missing_are_named_with_their_module(tmp_path):
    found = lacking_nodes({"/dev/null": "none", str(tmp_path / "fuse"): "fuse"})

    assert found == [f"{tmp_path}/fuse cannot be opened: load the kernel's module fuse (modprobe fuse)"]


async def test_a_file_in_place_of_the_run_directory_is_named(tmp_path):
    (tmp_path / "run").write_text("")

    assert any(f"{tmp_path}/run is no directory" in sentence for sentence in await lacking(str(tmp_path / "run")))


def test_a_qemu_without_its_iscsi_driver_is_named():
    requires("root", "qemu-storage-daemon")
    drivers = [place for place in DRIVERS if os.path.isdir(place)]
    assert drivers, f"none of {DRIVERS} is there: tell this test where qemu's drivers are"
    hide = " && ".join(f"mount -t tmpfs none {place}" for place in drivers)
    ask = "import asyncio; from onelun.compute.connectors.userspace.needs import lacking; print(asyncio.run(lacking('/nowhere')))"

    said = subprocess.run(
        [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            f'{hide} && exec "$0" -c "$1"',
            sys.executable,
            ask,
        ],
        env={**os.environ, "PYTHONPATH": LIB},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout

    assert "no iSCSI driver: install the package qemu-block-extra" in said


DRIVERS = ("/usr/lib/x86_64-linux-gnu/qemu", "/usr/lib/aarch64-linux-gnu/qemu", "/usr/lib/qemu")
