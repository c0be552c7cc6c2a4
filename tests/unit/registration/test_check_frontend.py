"""`onelun frontend check` as a whole: on a front-end where all is well, and on one where nothing is."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.support.oned import serving
from tests.support.oned_conf import ONED_CONF, VMM_EXECRC
from tests.support.tgt import free_port

from onelun.cli.frontend import frontend
from onelun.config import Frontend
from onelun.errors import Rejected
from onelun.registration import live_snapshots, oned_conf, own_name

CHECKOUT = Path(__file__).parents[3]


class Machine:
    def __init__(self, location: Path, api: str, auth: str) -> None:
        self.location = location
        self.conf = location / "etc/oned.conf"
        (location / "etc/vmm_exec").mkdir(parents=True)
        for room in ("tm", "datastore"):
            shutil.copytree(CHECKOUT / room / "onelun", location / "var/remotes" / room / "onelun")
        self.conf.write_text(oned_conf.registered(ONED_CONF[7, 4], (7, 4)))
        (location / "etc/vmm_exec/vmm_execrc").write_text(live_snapshots.registered(VMM_EXECRC))
        self.port = free_port()
        (location / "onelun.toml").write_text(
            f"""
            [broker]
            url = "amqp://frontend:secret@127.0.0.1:{self.port}/%2F"
            [limits]
            accept_s = 0.3
            [frontend]
            cloud = "3f0c5a4e-6f0f-4b62-9d39-2d1f6a1c7b11"
            opennebula_version = "7.4"
            socket = "{location}/s"
            owner = "{os.getuid()}"
            names = ["{own_name.own_name("")}"]
            api = "{api}"
            api_auth = "{auth}"
            """
        )

    def check(self) -> Result:
        environment = {"ONE_LOCATION": str(self.location), "ONELUN_CONFIG": str(self.location / "onelun.toml")}
        return CliRunner().invoke(frontend, ["check"], env=environment)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with serving(tmp_path, "7.4") as (oned, auth), socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        yield Machine(tmp_path, oned.url, auth)


def test_only_the_broker_is_named_where_only_the_broker_is_away(machine: Machine) -> None:
    result = machine.check()

    assert result.exit_code == 1
    assert result.output == f"broker: the broker at 127.0.0.1:{machine.port} cannot be reached: Connection refused\n"


def test_each_thing_that_is_wrong_is_a_line_that_begins_with_its_part(machine: Machine) -> None:
    machine.conf.write_text(ONED_CONF[7, 4])
    (machine.location / "etc/vmm_exec/vmm_execrc").write_text(VMM_EXECRC)
    shutil.rmtree(machine.location / "var/remotes/tm/onelun")
    (machine.location / "s").unlink()
    (machine.location / "one_auth").unlink()

    lines = machine.check().output.splitlines()

    parts = [line.partition(": ")[0] for line in lines]
    assert parts == ["oned.conf"] * 11 + ["vmm_execrc", "scripts", "socket", "oned", "broker"]


def test_a_file_that_cannot_be_read_is_a_finding_too(machine: Machine) -> None:
    machine.conf.write_text("TM_MAD = [\n")

    assert "oned.conf: " in machine.check().output
    assert "cannot be read: line 2 should have a name within TM_MAD" in machine.check().output


def test_a_name_of_the_front_end_that_nobody_serves_is_told(machine: Machine) -> None:
    """Stopping a VM names it: as HOSTNAME of oned.conf says, or as the machine's address is called first."""
    with machine.conf.open("a") as file:
        file.write('HOSTNAME = "one.example.org"\n')

    lines = machine.check().output.splitlines()

    assert lines[0] == (
        'oned.conf: oned calls this machine one.example.org, and frontend.names has no such name: add "one.example.org" to it'
    )
    assert [line.partition(": ")[0] for line in lines] == ["oned.conf", "broker"]


@pytest.mark.parametrize("known", [{"names": ("one", "one.example.org")}, {"hosts": {"one.example.org": "one"}}])
def test_a_front_end_may_be_a_host_too(known: dict[str, object]) -> None:
    mine = Frontend(cloud="3f0c5a4e-6f0f-4b62-9d39-2d1f6a1c7b11", **known)  # type: ignore[arg-type]

    assert own_name.findings('HOSTNAME = "one.example.org"\n', mine) == []


def test_the_name_of_a_file_that_cannot_be_read_is_not_guessed() -> None:
    with pytest.raises(Rejected):
        own_name.own_name("HOSTNAME = [\n")
