"""Configuration files of each role, damaged: what is loaded can be served with, and everything else is one sentence."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import strategies as st
from tests.support.fuzzing import attacks
from tests.support.mutation import HOSTILE, as_bytes, blobs, changed_value, lines_of, steps, texts

from onelun.cli.engines import backend_of, connector_of, exporter_of
from onelun.cli.main import main
from onelun.config import Config, load
from onelun.driver.running import Context
from onelun.rpc.address import parse_address
from onelun.rpc.link import Link

FRONTEND = """\
[broker]
url = "amqp://frontend:secret@127.0.0.1:5672/%2F"
heartbeat_s = 20

[limits]
accept_s = 5.0
high_water = 0.85
per_host = 4

[frontend]
cloud = "3f0c5a4e-6f0f-4b62-9d39-2d1f6a1c7b11"
opennebula_version = "6.10"
socket = "/run/onelun/frontend.sock"
nas = ["nas1", "nas2"]
names = ["vm"]
hosts = { host01 = "node1", host02 = "node2" }
api = "http://127.0.0.1:2633/RPC2"
max_image_gib = 1024
"""
NAS = """\
broker.url = "amqps://nas.nas1:secret@broker.example:5671/%2F?cafile=/etc/ssl/ca.pem"

[nas]
name = "nas1"
exporter = "tgt"
default_pool = "tank"
tgt = { address = "192.0.2.1", port = 3260, control = "/var/run/tgtd/socket.0" }
lio = { address = "2001:db8::1" }

[nas.pools.tank]
backend = "zfs"
dataset = "rpool/onelun"
properties = { compression = "lz4" }

[nas.pools.thin]
backend = "lvm"
vg = "vg0"
thin_pool = "pool"

[nas.pools.files]
backend = "file"
path = "/srv/onelun"
"""
COMPUTE = """\
[broker]
exchange = "rocks.vm-manage"

[compute]
name = "node1"
broker_url = "amqp://compute.node1:secret@127.0.0.1/"
connector = "userspace"
initiator = "iqn.2026-11.io.onelun.host:node1"
ready_s = 90.0
owner = "oneadmin"
backups = "/var/lib/one/backups"
"""
FILES = (FRONTEND, NAS, COMPUTE)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "onelun.toml"


def built(config: Config) -> None:
    """What each role's command makes of it before it serves. Some of it may be refused."""
    for name in ("nas", "compute", "frontend"):
        role = getattr(config, name)
        if role is not None:
            broker = config.broker_of(role)
            Link(broker.url, name=name, exchange=broker.exchange, heartbeat_s=broker.heartbeat_s)
    for value in msgspec.structs.asdict(config.limits).values():
        assert math.isfinite(value)
        assert value >= 0
    if config.nas is not None:
        for name, pool in config.nas.pools.items():
            backend_of(name, pool)
        exporter_of(config.nas)
    if config.compute is not None:
        connector_of(config.compute)
    if config.frontend is not None:
        context = Context(config.frontend, config.limits, None)  # type: ignore[arg-type]
        assert context.hosts is not None
        assert context.version is None or len(context.version) == 2


def check(file: Path, environ: dict[str, str]) -> None:
    runner = CliRunner()
    shown = runner.invoke(main, ["config", "show"], env={"ONELUN_CONFIG": str(file), **environ})
    assert shown.exception is None or isinstance(shown.exception, SystemExit), shown.exception
    if shown.exit_code:
        assert shown.output.startswith("Error: "), shown.output
    else:
        assert ":secret@" not in shown.output

    built(load({"ONELUN_CONFIG": str(file), **environ}).config)


ENVIRON = st.sampled_from([{}, {}, {"ONELUN_AMQP_URL": "amqp://a:b@127.0.0.1/"}, {"ONELUN_SOCKET": "/a"}])


@attacks("configuration", st.one_of(texts(FILES), lines_of(FILES)), ENVIRON)
def test_files_with_other_words(file: Path, text: str, environ: dict[str, str]) -> None:
    file.write_bytes(as_bytes(text))

    check(file, environ)


@attacks("configuration", blobs([text.encode() for text in FILES]), ENVIRON)
def test_files_that_are_no_text(file: Path, content: bytes, environ: dict[str, str]) -> None:
    file.write_bytes(content)

    check(file, environ)


def toml(value: Any) -> str:
    """The value as TOML writes it, where it can."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case str():
            signs = "".join(
                c if c.isprintable() and c not in '"\\' and ord(c) < 0xD800 else f"\\U{ord(c):08x}" for c in value
            )
            return f'"{signs}"'
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            return "{" + ", ".join(f"{toml(str(key))} = {toml(inner)}" for key, inner in value.items()) + "}"
    return '""'


PARSED = tuple(__import__("tomllib").loads(text) for text in FILES)
VALUES = (
    *HOSTILE,
    math.nan,
    math.inf,
    -math.inf,
    0,
    -1,
    1 << 31,
    1 << 63,
    10**30,
    65536,
    0.0,
    True,
    [],
    {},
    [[]],
    "amqp://",
    "amqp://[",
)


@attacks("configuration", st.sampled_from(PARSED), steps("drop", "replace", "rename", "add", "swap"), ENVIRON)
def test_files_of_another_shape(file: Path, parsed: dict[str, Any], done: Any, environ: dict[str, str]) -> None:
    changed = changed_value(parsed, done)
    text = (
        "\n".join(f"{toml(str(k))} = {toml(v)}" for k, v in changed.items())
        if isinstance(changed, dict)
        else toml(changed)
    )
    file.write_bytes(as_bytes(text))

    check(file, environ)


def leaves(document: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    found = []
    for key, value in document.items():
        found += leaves(value) if isinstance(value, dict) else [(document, key)]
    return found


@attacks(
    "configuration", st.sampled_from(range(len(FILES))), st.integers(0, 60), st.sampled_from(VALUES), ENVIRON, share=2.0
)
def test_files_with_one_hostile_value(file: Path, which: int, at: int, value: Any, environ: dict[str, str]) -> None:
    document = __import__("tomllib").loads(FILES[which])
    holder, key = (places := leaves(document))[at % len(places)]
    holder[key] = value
    file.write_bytes(as_bytes("\n".join(f"{toml(k)} = {toml(v)}" for k, v in document.items())))

    check(file, environ)


URLS = (
    "amqp://a:b@127.0.0.1:5672/%2F",
    "amqps://a:b@[::1]:5671/v?cafile=/a",
    "amqp://a:b@localhost",
    "amqps://a@localhost/?cafile=/a&certfile=/b&keyfile=/c",
)


@attacks(
    "configuration", st.one_of(texts(URLS), st.sampled_from(HOSTILE).map(lambda text: f"amqp://a:b@127.0.0.1:{text}/"))
)
def test_urls_of_brokers(url: str) -> None:
    address = parse_address(url)

    assert 0 < address.port < 65536
    assert address.password is not None or address.certfile
    assert (
        not address.password
        or address.password not in repr(address)
        or address.password in f"Address({address.user}@{address}"
    )
