"""Where the broker is and who we are there, read from an AMQP URL."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from onelun.errors import Rejected

# RFC 2544 keeps these addresses for tests of network devices, so no production network has them: the sandbox's bridge.
_TEST_NETWORK = ipaddress.ip_network("198.18.0.0/15")
# AMQP 0-9-1 has both as short strings.
_LONGEST = 255
_DEFAULT_PORTS = {"amqp": 5672, "amqps": 5671}


class Address(NamedTuple):
    """A broker and a login. Its text never shows the password."""

    host: str
    port: int
    tls: bool
    vhost: str
    user: str
    password: str
    cafile: str | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"Address({self.user}@{self})"


def parse_address(url: str) -> Address:
    """The address that `url` (amqp:// or amqps://, `?cafile=` names the authority that signed the broker's certificate) means.

    Raises Rejected, without showing the password, for what is no AMQP URL, and for a broker beyond this machine without
    TLS: CHAP secrets cross it.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
        options = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
    except ValueError as error:
        raise Rejected("the AMQP URL cannot be read: it should be amqp://USER:PASSWORD@HOST:PORT/VHOST") from error
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.username is None or parts.password is None:
        raise Rejected("the AMQP URL should be amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps:// for TLS")
    if unknown := set(options) - {"cafile"}:
        raise Rejected(f"the AMQP URL has an unknown option {', '.join(sorted(unknown))}; it may have cafile alone")
    if not url.isprintable():
        raise Rejected("the AMQP URL has characters that cannot be printed")
    address = Address(
        host=parts.hostname,
        port=port,
        tls=parts.scheme == "amqps",
        # "amqp://host" and "amqp://host/" both mean the default vhost, whose name is "/" (RabbitMQ's URI spec).
        vhost=unquote(parts.path[1:]) or "/",
        user=unquote(parts.username),
        password=unquote(parts.password),
        cafile=options["cafile"][0] if options else None,
    )
    if any(not word.isprintable() or len(word.encode()) > _LONGEST for word in (address.vhost, address.user)):
        raise Rejected(f"the user and the vhost in the AMQP URL must be printable, of at most {_LONGEST} bytes")
    if not address.tls and not _stays_here(address.host):
        raise Rejected(
            f"the broker {address} is on another machine and the AMQP URL has no TLS: use amqps://, because secrets cross it"
        )
    return address


def _stays_here(host: str) -> bool:
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return literal.is_loopback or (literal.version == 4 and literal in _TEST_NETWORK)
