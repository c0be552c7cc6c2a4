from __future__ import annotations

from pathlib import Path

import pytest
from pika import exceptions

from onelun.errors import Rejected
from onelun.rpc.address import parse_address
from onelun.rpc.tls import explained_alert, tls_context

BROKER = "amqps://nas.nas1@broker.example/?cafile=/a/ca.pem&certfile=/a/nas.nas1.pem"


def lost(alert: str) -> exceptions.AMQPError:
    """As pika tells of a broker that ends TLS 1.3 after the handshake."""
    text = f"Stream connection lost: SSLError(1, '[SSL: {alert}] {alert.lower()} (_ssl.c:2546)')"
    return exceptions.IncompatibleProtocolError(repr(exceptions.StreamLostError(text)))


@pytest.mark.parametrize(
    ("alert", "says"),
    [
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "says that our certificate /a/nas.nas1.pem has ended"),
        ("TLSV1_ALERT_UNKNOWN_CA", "does not know the authority that signed our certificate /a/nas.nas1.pem"),
        ("SSLV3_ALERT_BAD_CERTIFICATE", "does not take our certificate /a/nas.nas1.pem"),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", "does not agree on TLS with us"),
    ],
)
def test_what_a_broker_has_against_a_certificate_is_said(alert: str, says: str):
    sentence = explained_alert(parse_address(BROKER), lost(alert))

    assert sentence is not None
    assert sentence.startswith(f"the broker at broker.example:5671 {says}")


def test_who_shows_no_certificate_hears_how_to_name_one():
    address = parse_address("amqps://a:b@broker.example/")

    assert "name one in the AMQP URL" in (explained_alert(address, lost("TLSV13_ALERT_CERTIFICATE_REQUIRED")) or "")


def test_a_broker_that_cannot_be_trusted_is_said_with_the_name_and_the_authority():
    error = RuntimeError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: Hostname mismatch (_ssl.c:992)")

    sentence = explained_alert(parse_address(BROKER), error)

    assert sentence == (
        "the broker at broker.example:5671 cannot be trusted, certificate verify failed (Hostname mismatch):"
        " it needs a certificate for broker.example that /a/ca.pem has signed"
    )


def test_other_troubles_are_not_put_down_to_tls():
    assert explained_alert(parse_address(BROKER), OSError("Connection refused")) is None
    assert explained_alert(parse_address("amqp://a:b@127.0.0.1/"), lost("TLSV1_ALERT_UNKNOWN_CA")) is None


def test_files_that_cannot_be_read_are_named(tmp_path: Path):
    (tmp_path / "empty").touch()

    for options, says in (
        (f"cafile={tmp_path}/ca", f"cannot read the certificate authority {tmp_path}/ca: No such file"),
        (f"certfile={tmp_path}/cert", f"cannot read the certificate {tmp_path}/cert: No such file"),
        (f"certfile={tmp_path}/empty", f"{tmp_path}/empty has no certificate with a key"),
    ):
        with pytest.raises(Rejected) as caught:
            tls_context(parse_address(f"amqps://a:b@broker.example/?{options}"))
        assert says in caught.value.sentence
