"""`onelun broker setup` on a real broker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.support.broker import PrivateBroker
from tests.support.raw import Raw

from onelun.cli.broker import broker as command


def set_up(node: PrivateBroker, directory: Path, *names: str) -> Result:
    where = ["--url-dir", str(directory), "--rabbitmqctl", node.rabbitmqctl_path, "--broker-address", node.host_port]
    return CliRunner().invoke(command, ["setup", *where, *names])


def test_setting_up_twice_keeps_the_passwords_and_adds_what_is_new(spare_broker: PrivateBroker, tmp_path: Path):
    first = set_up(spare_broker, tmp_path, "--frontend", "frontend", "--nas", "nas1", "--compute", "node1")
    url = (tmp_path / "frontend.url").read_text()
    second = set_up(
        spare_broker, tmp_path, "--frontend", "frontend", "--nas", "nas1", "--compute", "node1", "--compute", "node2"
    )

    assert first.exit_code == second.exit_code == 0, first.output + second.output
    users = ("frontend", "nas.nas1", "compute.node1", "compute.node2")
    assert second.output.split()[: len(users)] == [f"{tmp_path}/{user}.url" for user in users]
    assert (tmp_path / "frontend.url").read_text() == url
    with Raw((tmp_path / "nas.nas1.url").read_text().strip()) as nas:
        assert nas.outcome("rocks.vm-manage", "node2") == "unroutable"


def test_a_guest_user_is_pointed_out(spare_broker: PrivateBroker, tmp_path: Path):
    spare_broker.ctl("add_user", "guest", "guest")

    result = set_up(spare_broker, tmp_path, "--nas", "nas1")

    assert result.exit_code == 0
    assert "The user guest still exists" in result.output


def test_agents_that_a_repeat_does_not_name_are_pointed_out(spare_broker: PrivateBroker, tmp_path: Path):
    everybody = ("--nas", "nas1", "--compute", "node1", "--compute", "node2")
    assert set_up(spare_broker, tmp_path, *everybody).exit_code == 0

    result = set_up(spare_broker, tmp_path, "--nas", "nas1", "--compute", "node1")

    assert result.exit_code == 0
    assert "compute.node2" in result.output.partition("The broker also has ")[2].partition(":")[0]
    again = set_up(spare_broker, tmp_path, *everybody)
    assert "compute.node2" not in again.output.partition("The broker also has ")[2]


def test_an_exchange_of_another_type_is_refused_and_left_alone(spare_broker: PrivateBroker, tmp_path: Path):
    vhost = "rocks"
    spare_broker.ctl("add_vhost", vhost)
    spare_broker.ctl("set_permissions", "-p", vhost, "admin", ".*", ".*", ".*")
    with Raw(spare_broker.url().replace("%2F", vhost)) as rocks:
        rocks.channel.exchange_declare("rocks.vm-manage", "direct", durable=True)

    result = set_up(spare_broker, tmp_path, "--nas", "nas1", "--vhost", vhost)

    assert result.exit_code == 1
    assert "exists as a direct exchange, which cannot keep nodes apart" in result.output
    exported = json.loads(spare_broker.ctl("-q", "export_definitions", "-", "--format", "json"))
    assert [(e["type"], e["vhost"]) for e in exported["exchanges"] if e["vhost"] == vhost] == [("direct", vhost)]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], "name at least one"),
        (["--nas", "NAS"], "'NAS' is no name of an agent"),
        (["--nas", "nas1", "--broker-address", "10.1.2.3:5672"], "use amqps://"),
        (["--nas", "nas1", "--tls", "--tls-passwords"], "give one"),
        (["--nas", "nas1", "--tls", "--tls-name", "a b", "--tls-dir", "/proc/tls"], "is no name or address of a host"),
        (["--nas", "nas1", "--tls", "--tls-dir", "/proc/tls"], "cannot make the directory /proc/tls"),
    ],
)
def test_what_cannot_be_is_refused_before_the_broker_is_asked(tmp_path: Path, names: list[str], says: str):
    where = ["--url-dir", str(tmp_path / "urls"), "--rabbitmqctl", "/bin/false"]
    result = CliRunner().invoke(command, ["setup", *where, *names])

    assert result.exit_code != 0
    assert says in result.output
    assert "/bin/false" not in result.output
    assert not (tmp_path / "urls").exists()


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        # What rabbitmqctl ends with when its node does not run.
        ("echo DIAGNOSTICS; exit 69", "finds no RabbitMQ that runs on this machine: start it"),
        ("echo 'Only root or rabbitmq should run rabbitmqctl'; exit 1", "Only root or rabbitmq should run"),
    ],
)
def test_a_broker_that_is_not_to_be_had_is_said_before_certificates_are_made(tmp_path: Path, lines: str, says: str):
    tool = tmp_path / "rabbitmqctl"
    tool.write_text(f"#!/bin/sh\n{lines}\n")
    tool.chmod(0o755)
    where = ["--url-dir", str(tmp_path / "urls"), "--tls-dir", str(tmp_path / "tls"), "--rabbitmqctl", str(tool)]

    result = CliRunner().invoke(command, ["setup", "--tls", *where, "--nas", "nas1", "--broker-address", "one:5671"])

    assert result.exit_code == 1
    assert says in result.output
    assert "Made" not in result.output
    assert list((tmp_path / "tls").iterdir()) == []


def test_a_broker_that_is_not_there_is_said(tmp_path: Path):
    node = PrivateBroker(tmp_path / "absent")

    result = set_up(node, tmp_path, "--nas", "nas1")

    assert result.exit_code == 1
    assert "cannot run" in result.output
