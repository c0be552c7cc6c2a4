"""Certificates as `openssl` reads them: whose they are, until when, and who signed them."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from typing import NamedTuple

from onelun import command
from onelun.errors import CommandFailed, Rejected

OPENSSL_S = 30.0
_CN = re.compile(r"^subject=.*?\bCN ?= ?([^,+\n]*)", re.MULTILINE)
_DATE = r"^{}=(.+)$"
_NAME = re.compile(r"(DNS|IP Address):([^,\s]+)")


class Certificate(NamedTuple):
    """What a certificate says. Times are seconds since the epoch; `names` are the hosts that it is for."""

    path: str
    account: str
    begins: float
    ends: float
    names: frozenset[str]


async def read_certificate(path: str) -> Certificate:
    """The first certificate in the file `path`. Raises Rejected where there is none, CommandFailed without openssl."""
    words = ("-noout", "-subject", "-nameopt", "RFC2253", "-dates", "-ext", "subjectAltName")
    try:
        # openssl says of a file that cannot be opened what few understand.
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        said = await command.run("openssl", "x509", "-in", path, *words, timeout_s=OPENSSL_S)
        begins, ends = (_seconds(said.stdout, word) for word in ("notBefore", "notAfter"))
    except OSError as error:
        raise Rejected(f"cannot read the certificate {path}: {error.strerror}") from error
    except CommandFailed as error:
        if "status" not in error.facts:
            raise
        raise Rejected(f"{path} has no certificate") from error
    subject = _CN.search(said.stdout)
    names = frozenset(plain_host(name) for _, name in _NAME.findall(said.stdout))
    return Certificate(path, subject[1] if subject else "", begins, ends, names)


async def is_signed_by(path: str, authority: str) -> bool:
    """Whether the certificate in `path` was signed by one in the file `authority`, whatever the time is."""
    words = ("-no_check_time", "-CAfile", authority, path)
    said = await command.run("openssl", "verify", *words, timeout_s=OPENSSL_S, check=False)
    return said.status == 0


def has_its_key(path: str, key: str | None = None) -> bool:
    """Whether the key of the certificate in `path` is in the file `key`, or beside it; false for one with a passphrase."""
    try:
        # A passphrase that is given keeps openssl from asking the terminal for one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(path, key, password="")
    except (OSError, ValueError):
        return False
    return True


def plain_host(text: str) -> str:
    """A host's name in small letters, or an address in its shortest form."""
    try:
        return ipaddress.ip_address(text.strip("[]")).compressed
    except ValueError:
        return text.lower()


def _seconds(said: str, word: str) -> float:
    found = re.search(_DATE.format(word), said, re.MULTILINE)
    if found is None:
        raise Rejected(f"openssl tells no {word}: {said[:100]!r}")
    return float(ssl.cert_time_to_seconds(found[1]))
