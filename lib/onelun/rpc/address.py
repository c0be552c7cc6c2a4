"""Where the broker is and who we are there, read from an AMQP URL."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from onelun.errors import Rejected

# RFC 2544 keeps these addresses for tests of network devices, so no production network has them: the sandbox's bridge.
_TEST_NETWORK = ipaddress.ip_network("198.18.0.0/15")
# AMQP 0-9-1 has both as short strings.
_LONGEST = 255
_DEFAULT_PORTS = {"amqp": 5672, "amqps": 5671}
# Named as in RabbitMQ's "URI Query Parameters".
_OPTIONS = ("cafile", "certfile", "keyfile")


class Address(NamedTuple):
    """A broker and a login; without a password the certificate is the login. Its text never shows the password."""

    host: str
    port: int
    tls: bool
    vhost: str
    user: str
    password: str | None
    cafile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"Address({self.user}@{self})"


def parse_address(url: str) -> Address:
    """The address that `url` means: amqp:// or amqps://, with files for TLS as options.

    `cafile` has the authority that signed the broker's certificate, `certfile` our own certificate and `keyfile` its key,
    unless that is in `certfile` too. Raises Rejected, without showing the password, for what is no AMQP URL, and for a
    broker beyond this machine without TLS: CHAP secrets cross it.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
        options = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
    except ValueError as error:
        raise Rejected("the AMQP URL cannot be read: it should be amqp://USER:PASSWORD@HOST:PORT/VHOST") from error
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.username is None:
        raise Rejected("the AMQP URL should be amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps:// for TLS")
    files = _files(options, tls=parts.scheme == "amqps")
    if parts.password is None and "certfile" not in files:
        raise Rejected(
            "the AMQP URL should be amqp://USER:PASSWORD@HOST:PORT/VHOST,"
            " or amqps://USER@HOST:PORT/VHOST?cafile=…&certfile=… for a login by certificate"
        )
    if not url.isprintable():
        raise Rejected("the AMQP URL has characters that cannot be printed")
    address = Address(
        host=parts.hostname,
        port=port,
        tls=parts.scheme == "amqps",
        # "amqp://host" and "amqp://host/" both mean the default vhost, whose name is "/" (RabbitMQ's URI spec).
        vhost=unquote(parts.path[1:]) or "/",
        user=unquote(parts.username),
        password=None if parts.password is None else unquote(parts.password),
        **files,
    )
    if any(not word.isprintable() or len(word.encode()) > _LONGEST for word in (address.vhost, address.user)):
        raise Rejected(f"the user and the vhost in the AMQP URL must be printable, of at most {_LONGEST} bytes")
    if not address.tls and not _stays_here(address.host):
        raise Rejected(
            f"the broker {address} is on another machine and the AMQP URL has no TLS: use amqps://, because secrets cross it"
        )
    return address


def _files(options: Mapping[str, Sequence[str]], *, tls: bool) -> dict[str, str]:
    """The options by name. Raises Rejected for those that cannot be."""
    if unknown := set(options) - set(_OPTIONS):
        raise Rejected(
            f"the AMQP URL has an unknown option {', '.join(sorted(unknown))}; it may have {', '.join(_OPTIONS)}"
        )
    if "keyfile" in options and "certfile" not in options:
        raise Rejected("the AMQP URL has a keyfile and no certfile: a key is of use with its certificate alone")
    if "certfile" in options and not tls:
        raise Rejected("the AMQP URL has a certfile and no TLS: use amqps://")
    return {name: files[0] for name, files in options.items()}


def _stays_here(host: str) -> bool:
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return literal.is_loopback or (literal.version == 4 and literal in _TEST_NETWORK)
