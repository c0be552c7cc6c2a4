"""The sandbox's own parts: what they compute, and what they say where they cannot work."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tomllib

import pytest
from tests.support.requires import requires
from tests.support.sandbox.place import CHECKOUT, HOSTS, IDS, Place
from tests.support.sandbox.processes import MARK, Process, look, marked
from tests.support.sandbox.roles import toml

INSTALL = f"{CHECKOUT}/scripts/lib/install.sh"


def test_every_sandbox_has_addresses_users_and_devices_of_its_own() -> None:
    places = [Place(number, f"/tmp/onelun-sandbox-{number}") for number in IDS]

    addresses = [place.address(host) for place in places for host in (None, *HOSTS)]
    users = [uid for place in places for uid in (place.broker_uid, place.frontend_uid)]
    devices = [name for place in places for name in (place.bridge, *(place.veth(host) for host in HOSTS))]

    for found in (addresses, users, devices):
        assert len(set(found)) == len(found)
    # IFNAMSIZ is 16 with its end (linux/if.h).
    assert max(map(len, devices)) <= 15
    # What systemd's list of user ids leaves unused.
    assert 60706 <= min(users) < max(users) <= 61183


def test_settings_written_as_toml_are_read_back_the_same() -> None:
    settings = {
        "broker": {"url": 'amqp://a:"b\\@c/%2F'},
        "limits": {},
        "nas": {"name": "nas1", "pools": {"tank": {"backend": "file", "path": "/p q"}}, "tgt": {"port": 3260}},
        "frontend": {"names": ["frontend"], "hosts": {"host01": "node1"}},
    }

    read = tomllib.loads(toml(settings))

    assert read == {key: value for key, value in settings.items() if value}


def test_a_process_is_told_from_an_earlier_one_of_its_pid() -> None:
    living = look(os.getpid())

    assert living.alive()
    assert not Process(living.pid, living.started - 1, living.name).alive()


def test_a_process_is_found_by_the_mark_in_its_environment() -> None:
    place = Place(7, "/tmp/nowhere")

    child = subprocess.Popen(["sleep", "60"], env={MARK: place.mark, "PATH": os.environ["PATH"]})
    try:
        # The kernel lets the parent go on a moment before the environment can be read.
        end = time.monotonic() + 60
        while not (found := [process.pid for process, its in marked().items() if its == place]):
            assert time.monotonic() < end
    finally:
        child.kill()
        child.wait()

    assert found == [child.pid]


def test_a_machine_without_namespaces_is_refused_in_one_sentence() -> None:
    requires("root", "setpriv")
    program = "from tests.support.sandbox.topology import check_machine; check_machine()"

    # Without this capability unshare(2) is refused, as it is in an ordinary container.
    argv = ["setpriv", "--bounding-set", "-sys_admin", "--", sys.executable, "-c", program]
    done = subprocess.run(argv, cwd=CHECKOUT, env={"PYTHONPATH": "lib:."}, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "SandboxError: this machine allows no network and mount namespaces" in done.stderr


def install_sh(script: str, **variables: str) -> str:
    """What bash prints when it has sourced scripts/lib/install.sh and then runs `script`."""
    whole = f"set -euo pipefail; . {INSTALL}; {script}"
    env = {"PATH": os.environ["PATH"], "ROOT": CHECKOUT, **variables}
    return subprocess.run(["bash", "-c", whole], env=env, capture_output=True, text=True, check=True).stdout


def test_every_package_says_what_it_is_for() -> None:
    with open(f"{CHECKOUT}/scripts/lib/packages") as file:
        lines = [line.split(maxsplit=2) for line in file if not line.startswith("#")]

    assert all(len(line) == 3 and line[1] in ("run", "test", "lab") for line in lines)
    assert len({line[0] for line in lines}) == len(lines)


def test_the_packages_of_a_group_are_those_of_the_list() -> None:
    assert "bats" in install_sh("packages_for test").split()
    assert "bats" not in install_sh("packages_for run").split()
    assert {"tgt", "bats"} <= set(install_sh("packages_for run test").split())


@pytest.mark.parametrize("before", [None, "#!/bin/sh\nexit 104\n"])
def test_what_forbade_services_before_comes_back_also_after_a_kill(tmp_path, before: str | None) -> None:
    policy = tmp_path / "policy-rc.d"
    if before:
        policy.write_text(before)

    forbid = f"POLICY={policy}; forbid_services; forbid_services"
    install_sh(forbid)  # killed here, as it were
    forbidden = subprocess.run(["sh", str(policy)], check=False).returncode
    install_sh(f"{forbid}; allow_services; allow_services")

    assert forbidden == 101
    assert (policy.read_text() if before else None) == before
    assert os.listdir(tmp_path) == (["policy-rc.d"] if before else [])
