from __future__ import annotations

from pathlib import Path

import pytest

from onelun import command
from onelun.cli.check_tls import findings
from onelun.rpc.address import parse_address


async def test_a_login_by_password_has_no_certificate_to_speak_of():
    assert await findings(parse_address("amqps://a:b@broker.example/?cafile=/absent"), connected=False) == []


async def test_a_machine_without_openssl_is_told_so_and_hears_the_brokers_word_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "mine.pem").touch()
    monkeypatch.setitem(command._ENVIRONMENT, "PATH", str(tmp_path))

    (found,) = await findings(parse_address(f"amqps://a@broker.example/?certfile={tmp_path}/mine.pem"), connected=False)

    assert found.sentence.startswith(
        "certificates cannot be looked at, openssl is missing or hangs: cannot run openssl"
    )
    assert not found.explains
