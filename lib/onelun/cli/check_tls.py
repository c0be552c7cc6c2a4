"""What `onelun ROLE check` says of the certificates with which a role goes to the broker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import time
from typing import NamedTuple

from onelun.errors import CommandFailed, Rejected
from onelun.rpc.address import Address
from onelun.rpc.certificates import Certificate, has_its_key, is_signed_by, read_certificate
from onelun.rpc.tls import tls_context

SOON_S = 30 * 86400
_HANDSHAKE_S = 10.0
_RENEW = "repeat `onelun broker setup --tls` and put what it makes in its place"


class Finding(NamedTuple):
    """A sentence. `explains` is whether it tells why a broker would not have us."""

    sentence: str
    explains: bool


async def findings(address: Address, *, connected: bool) -> list[Finding]:
    """What is wrong, or soon will be, with our certificate, its key, its authority; where we are connected, the broker's too.

    Nothing for a login by password.
    """
    if address.certfile is None:
        return []
    try:
        return await _looked_at(address, address.certfile, connected=connected)
    except Rejected as error:
        return [Finding(error.sentence, explains=True)]
    except CommandFailed as error:
        return [
            Finding(f"certificates cannot be looked at, openssl is missing or hangs: {error.sentence}", explains=False)
        ]


async def _looked_at(address: Address, certfile: str, *, connected: bool) -> list[Finding]:
    ours = await read_certificate(certfile)
    found = [*_of_key(address), *_of_time(ours, "our certificate"), *_of_account(ours, address)]
    if address.cafile is not None:
        found += await _of_authority(certfile, address.cafile, connected=connected)
    if connected:
        found += await _of_broker(address)
    return found


def _of_key(address: Address) -> list[Finding]:
    assert address.certfile is not None
    path = address.keyfile or address.certfile
    try:
        mode = os.stat(path).st_mode & 0o777
    except OSError as error:
        return [Finding(f"cannot read the key {path}: {error.strerror}", explains=True)]
    if not has_its_key(address.certfile, address.keyfile):
        return [
            Finding(f"{path} has no key of the certificate {address.certfile}, without a passphrase", explains=True)
        ]
    if mode & 0o027:
        return [
            Finding(f"the key in {path} may be read or changed by others (mode {mode:04o}): chmod 0600", explains=False)
        ]
    return []


def _of_time(certificate: Certificate, called: str) -> list[Finding]:
    now = time.time()
    if now < certificate.begins:
        begins = _date(certificate.begins)
        return [Finding(f"{called} {certificate.path} begins on {begins}: is the clock right?", explains=True)]
    if certificate.ends <= now:
        return [Finding(f"{called} {certificate.path} ended on {_date(certificate.ends)}: {_RENEW}", explains=True)]
    if certificate.ends - now < SOON_S:
        days = int((certificate.ends - now) // 86400)
        ends = f"ends on {_date(certificate.ends)}, in {days} days"
        return [Finding(f"{called} {certificate.path} {ends}: {_RENEW}", explains=False)]
    return []


def _of_account(ours: Certificate, address: Address) -> list[Finding]:
    if address.password is not None or ours.account == address.user:
        return []
    return [
        Finding(
            f"our certificate {ours.path} is of {ours.account!r}, and the AMQP URL of {address.user}", explains=True
        )
    ]


async def _of_authority(certfile: str, cafile: str, *, connected: bool) -> list[Finding]:
    found = _of_time(await read_certificate(cafile), "the authority")
    # Where the broker takes both, they may come from two authorities.
    if not connected and not await is_signed_by(certfile, cafile):
        sentence = f"our certificate {certfile} was not signed by {cafile}: they are of two authorities"
        found.append(Finding(sentence, explains=True))
    return found


async def _of_broker(address: Address) -> list[Finding]:
    """When the broker's certificate ends, as it shows it."""
    try:
        async with asyncio.timeout(_HANDSHAKE_S):
            _, writer = await asyncio.open_connection(address.host, address.port, ssl=tls_context(address))
    except (OSError, TimeoutError):
        # It answered a moment ago; whether it is there is another's to say.
        return []
    shown = writer.get_extra_info("peercert")
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    begins, ends = (float(ssl.cert_time_to_seconds(shown[word])) for word in ("notBefore", "notAfter"))
    return _of_time(Certificate(f"of {address}", "", begins, ends, frozenset()), "the broker's certificate")


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))
