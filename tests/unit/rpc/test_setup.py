from __future__ import annotations

import base64
import hashlib
import os
import re
from pathlib import Path

import pytest

from onelun.errors import Rejected
from onelun.rpc.address import parse_address
from onelun.rpc.setup import definitions, grants, hashed
from onelun.rpc.url_directory import UrlDirectory


def granted(user: str):
    made = grants(["frontend"], ["nas1", "nas.two"], ["node1", "node2"])
    return next(grant for grant in made if grant.user == user)


def test_a_nas_reaches_its_own_queue_and_no_name_that_resembles_it():
    grant = granted("nas.nas.two")

    assert re.fullmatch(grant.configure, "nas.two")
    assert not re.search(grant.configure, "nasxtwo")
    assert not re.search(grant.configure, "nas.two1")
    assert not re.search(grant.topic_read, "xnas.two")


def test_a_nas_asks_every_compute_node_that_was_named_and_nobody_else():
    grant = granted("nas.nas1")

    assert [name for name in ("node1", "node2", "node12", "nas1", "nas.two") if re.search(grant.topic_write, name)] == [
        "node1",
        "node2",
    ]


def test_a_compute_node_asks_nobody():
    assert granted("compute.node1").topic_write == "^$"


@pytest.mark.parametrize("name", ["amq.default", "rpc-x", "rocks.vm-manage", "Nas1", "nas1|.*", "", "a b"])
def test_a_name_that_would_grant_more_than_a_queue_is_refused(name: str):
    with pytest.raises(Rejected):
        grants([], [name], [])


def test_two_agents_of_one_name_are_refused():
    with pytest.raises(Rejected, match="node1 is given twice"):
        grants([], ["node1"], ["node1"])


def test_a_frontend_cannot_pass_for_an_agent():
    with pytest.raises(Rejected, match="agents' users begin like that"):
        grants(["nas.nas1"], [], [])


def test_a_password_is_hashed_as_rabbitmq_does():
    # The recipe of RabbitMQ's documentation: salt, then SHA-256 over salt and password.
    expected = base64.b64encode(b"salt" + hashlib.sha256(b"saltsecret").digest()).decode()

    assert hashed("secret", b"salt") == expected


def test_a_url_file_keeps_its_password_and_is_its_owners_alone(tmp_path: Path):
    directory = UrlDirectory(str(tmp_path / "urls"))
    password = directory.password_of("nas.nas1")

    path = directory.write("nas.nas1", password + "/@", address="127.0.0.1:5672", vhost="/", tls=None)

    assert directory.password_of("nas.nas1") == password + "/@"
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path / "urls") == ["nas.nas1.url"]


def test_a_url_for_a_certificate_names_its_files_and_has_no_password(tmp_path: Path):
    files = {"cafile": "/etc/onelun/tls/ca.pem", "certfile": "/etc/onelun/tls/nas.nas1.pem"}
    directory = UrlDirectory(str(tmp_path))

    path = directory.write("nas.nas1", None, address="one.example.org:5671", vhost="/", tls=files)

    address = parse_address(Path(path).read_text().strip())
    assert (address.user, address.password, address.host) == ("nas.nas1", None, "one.example.org")
    assert (address.cafile, address.certfile) == (files["cafile"], files["certfile"])


def test_a_user_without_a_password_has_no_hash_that_one_could_match():
    users = definitions(grants(["frontend"], ["nas1"], []), {"frontend": "a"}, "/")["users"]

    assert [(user["name"], user["password_hash"] == "") for user in users] == [("frontend", False), ("nas.nas1", True)]


@pytest.mark.parametrize("text", ["notes of mine\n", "amqp://nas.nas2:a@127.0.0.1/\n", "http://nas.nas1@127.0.0.1/"])
def test_a_file_that_has_no_url_of_the_user_is_left_alone(tmp_path: Path, text: str):
    (tmp_path / "nas.nas1.url").write_text(text)

    with pytest.raises(Rejected, match="it is somebody else's, move it away"):
        UrlDirectory(str(tmp_path)).password_of("nas.nas1")
