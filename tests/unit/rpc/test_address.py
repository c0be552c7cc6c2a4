from __future__ import annotations

import pytest

from onelun.errors import Rejected
from onelun.rpc.address import parse_address


def test_a_url_gives_host_port_vhost_and_login():
    address = parse_address("amqp://nas.nas1:p%40ss@127.0.0.1:5673/%2Fcloud")

    assert (address.host, address.port, address.vhost) == ("127.0.0.1", 5673, "/cloud")
    assert (address.user, address.password, address.tls) == ("nas.nas1", "p@ss", False)


@pytest.mark.parametrize("path", ["", "/", "/%2F"])
def test_a_url_without_a_vhost_means_the_default_one(path: str):
    assert parse_address(f"amqp://a:b@localhost{path}").vhost == "/"


def test_tls_has_a_port_of_its_own_and_may_name_an_authority():
    address = parse_address("amqps://a:b@broker.example/?cafile=/etc/onelun/ca.pem")

    assert (address.port, address.tls, address.cafile) == (5671, True, "/etc/onelun/ca.pem")


def test_a_certificate_takes_the_place_of_the_password():
    address = parse_address("amqps://nas.nas1@broker.example/?cafile=/a/ca.pem&certfile=/a/nas.nas1.pem&keyfile=/a/key")

    assert (address.user, address.password) == ("nas.nas1", None)
    assert (address.cafile, address.certfile, address.keyfile) == ("/a/ca.pem", "/a/nas.nas1.pem", "/a/key")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "[::1]", "198.18.0.1", "198.19.255.254"])
def test_a_broker_on_this_machine_needs_no_tls(host: str):
    assert not parse_address(f"amqp://a:b@{host}/").tls


@pytest.mark.parametrize("host", ["10.0.0.1", "198.20.0.1", "broker", "localhost.example", "[2001:db8::1]"])
def test_a_broker_elsewhere_is_refused_without_tls(host: str):
    with pytest.raises(Rejected, match="use amqps://, because secrets cross it"):
        parse_address(f"amqp://a:b@{host}/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1",
        "http://a:secret-word@127.0.0.1/",
        "amqp://127.0.0.1/",
        "amqp://a@127.0.0.1/",
        "amqp://a:secret-word@/",
        "amqp://a:secret-word@127.0.0.1:port/",
        "amqp://a:secret-word@127.0.0.1:99999/",
        "amqp://a:secret-word@[::1/",
        "amqp://a:secret-word@127.0.0.1/?heartbeat=0",
        "amqp://a:secret-word@127.0.0.1/?cafile",
        "amqps://a:secret-word@127.0.0.1/?keyfile=/key",
        "amqps://a@127.0.0.1/?cafile=/ca.pem",
        "amqp://a:secret-word@127.0.0.1/?certfile=/cert.pem",
        "amqp://a@127.0.0.1/?certfile=/cert.pem",
    ],
)
def test_what_is_no_amqp_url_is_refused_without_showing_the_password(url: str):
    with pytest.raises(Rejected) as caught:
        parse_address(url)

    assert "AMQP URL" in str(caught.value)
    assert "secret-word" not in str(caught.value)


def test_an_address_never_shows_its_password():
    address = parse_address("amqp://a:secret-word@127.0.0.1/")

    assert "secret-word" not in f"{address} {address!r}"
