"""What the units leave to the services, as systemd itself judges the files; tests/lab/11-install.bats has systemd run them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tests.support.requires import requires

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
# systemd's own sum, of 10 for a service with all that root has; less is better. It may fall, and rises only with a reason.
EXPOSURE = {"frontend": 3.1, "nas": 6.2, "compute": 7.0}

EVERYWHERE = {
    "NoNewPrivileges",
    "RestrictRealtime",
    "LockPersonality",
    "RestrictNamespaces_user",
    "RestrictAddressFamilies_AF_PACKET",
    "SystemCallArchitectures",
    "SystemCallFilter_clock",
    "SystemCallFilter_reboot",
    "SystemCallFilter_swap",
    "CapabilityBoundingSet_CAP_SYS_TIME",
    "CapabilityBoundingSet_CAP_SYS_BOOT",
    "CapabilityBoundingSet_CAP_SYSLOG",
    "CapabilityBoundingSet_CAP_BPF",
}
OWN = {
    "frontend": {
        "UserOrDynamicUser",
        "CapabilityBoundingSet_CAP_SYS_ADMIN",
        "CapabilityBoundingSet_CAP_DAC_FOWNER_IPC_OWNER",
        "CapabilityBoundingSet_CAP_SYS_PTRACE",
        "ProtectKernelModules",
        "ProtectControlGroups",
        "SystemCallFilter_mount",
        "SystemCallFilter_module",
    },
    "nas": {"RestrictSUIDSGID", "PrivateTmp", "ProtectHostname", "ProtectKernelLogs", "ProtectControlGroups"},
    "compute": set(),
}


def judged(role: str) -> list[dict[str, object]]:
    """What `systemd-analyze security` says of the unit file, one item a setting."""
    requires("systemd-analyze")
    argv = ["systemd-analyze", "security", "--offline=true", "--json=short", UNITS / f"onelun-{role}.service"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    return list(json.loads(done.stdout))


@pytest.mark.parametrize("role", EXPOSURE)
def test_a_unit_closes_what_its_service_does_not_need(role: str):
    closed = {item["json_field"] for item in judged(role) if item["set"]}

    assert closed >= EVERYWHERE | OWN[role]


@pytest.mark.parametrize("role", ["compute", "frontend"])
def test_a_unit_leaves_openat2_to_who_opens_the_directories_of_vms(role: str):
    assert "\nRestrictSUIDSGID" not in (UNITS / f"onelun-{role}.service").read_text()


@pytest.mark.parametrize("role", EXPOSURE)
def test_a_unit_is_no_more_exposed_than_before(role: str):
    requires("systemd-analyze")
    argv = ["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={round(EXPOSURE[role] * 10)}"]

    done = subprocess.run([*argv, UNITS / f"onelun-{role}.service"], capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stdout[-200:]


@pytest.mark.parametrize("role", EXPOSURE)
def test_systemd_knows_every_word_of_a_unit(role: str):
    requires("systemd-analyze")

    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", UNITS / f"onelun-{role}.service"],
        capture_output=True,
        text=True,
        timeout=60,
    )

    # The program itself is not installed where the tests run.
    said = [
        line
        for line in done.stderr.splitlines()
        if f"onelun-{role}.service:" in line and "is not executable" not in line
    ]
    assert said == []


@pytest.mark.parametrize("role", EXPOSURE)
def test_a_unit_leaves_no_core_dump(role: str):
    assert "LimitCORE=0" in (UNITS / f"onelun-{role}.service").read_text().splitlines()
