"""The cloud's own certificate authority: it signs a certificate for the broker, and one for each account.

`ca.key` never leaves its directory. A certificate and its key are one file, so that a renewal is one rename on each machine.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from onelun import command
from onelun.errors import Rejected
from onelun.rpc.certificates import OPENSSL_S, Certificate, has_its_key, is_signed_by, plain_host, read_certificate
from onelun.rpc.private_file import make_private_directory, write_private

DAY_S = 86400
# Who runs the setup when `check` first speaks of an end, 30 days before it, gets a new one.
RENEW_S = 60 * DAY_S
CERTIFICATE_DAYS = 730
# A certificate must not outlive the one that signed it.
AUTHORITY_DAYS, RENEW_AUTHORITY_S = 3650, (CERTIFICATE_DAYS + 60) * DAY_S
BROKER, AUTHORITY = "broker", "ca"
# RFC 5280, ub-common-name.
_LONGEST_NAME = 64
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_CURVE = ("-pkeyopt", "ec_paramgen_curve:P-256")
# RFC 5280 as strict readers want it, Python 3.13 among them.
_CONFIGURATION = """\
[req]
prompt = no
distinguished_name = subject
[subject]
CN = {name}
[authority]
basicConstraints = critical,CA:TRUE,pathlen:0
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[account]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[broker]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""
_RABBITMQ_CONF = """\
# Made by `onelun broker setup --tls`: TLS alone, and each client logs in as the account that its certificate names.
# It needs the plug-in rabbitmq_auth_mechanism_ssl. Where others use this RabbitMQ by a password: take listeners.tcp and
# fail_if_no_peer_cert out of a copy of this file, and add auth_mechanisms.2 = PLAIN.
listeners.tcp = none
listeners.ssl.default = {port}
ssl_options.cacertfile = {directory}/ca.pem
ssl_options.certfile = {directory}/broker.pem
ssl_options.keyfile = {directory}/broker.pem
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
auth_mechanisms.1 = EXTERNAL
ssl_cert_login_from = common_name
"""


def rabbitmq_conf(port: int, directory: str) -> str:
    """The lines of rabbitmq.conf for a broker whose `ca.pem` and `broker.pem` are in `directory`."""
    return _RABBITMQ_CONF.format(port=port, directory=directory)


class Authority:
    """The authority that lives in `directory`; `now` is the clock, in seconds since the epoch."""

    def __init__(self, directory: str, now: Callable[[], float] = time.time) -> None:
        self.directory = os.path.abspath(directory)
        self._now = now

    def file_of(self, name: str) -> str:
        """Where the certificate of an account is, and of `broker` and `ca`."""
        return os.path.join(self.directory, f"{name}.pem")

    def prepare(self, accounts: Sequence[str], hosts: Sequence[str]) -> list[str]:
        """Make the directory, and return the hosts as a certificate has them. Raises Rejected for a name that cannot be."""
        names = [_checked_host(host) for host in hosts]
        for account in accounts:
            if account in (BROKER, AUTHORITY):
                raise Rejected(f"a frontend cannot be called {account!r}: a certificate of that name is another's")
            if len(account) > _LONGEST_NAME:
                raise Rejected(f"the user {account} is too long for a certificate, which takes {_LONGEST_NAME} letters")
        make_private_directory(self.directory)
        return names

    async def make(self, accounts: Sequence[str], hosts: Sequence[str]) -> list[str]:
        """Make what is missing, and anew what ends soon, and return the names of both: `ca`, `broker`, accounts.

        `hosts` are the names and addresses by which the broker is reached. Repeating it changes nothing that is good.
        Raises Rejected, before anything is changed, for a name that cannot be and for a file that is not this authority's.
        """
        names = self.prepare(accounts, hosts)
        with self._alone() as draft:
            authority = await self._authority()
            found = {name: await self._own(name, authority) for name in (BROKER, *accounts)}
            made = []
            if authority is None or self._ends_within(authority, RENEW_AUTHORITY_S):
                await self._make_authority(authority, draft)
                made.append(AUTHORITY)
            for name, there in found.items():
                lacks = name == BROKER and there is not None and not there.names.issuperset(names)
                if there is None or lacks or self._ends_within(there, RENEW_S):
                    await self._sign(name, sorted({*names, *(there.names if there else ())}), draft)
                    made.append(name)
        return made

    def write_conf(self, text: str) -> tuple[str, bool]:
        """Keep the lines for RabbitMQ beside the certificates; return the file's path, and whether it had others before.

        Raises Rejected for a file that is another's.
        """
        path = os.path.join(self.directory, "rabbitmq.conf")
        try:
            with open(path, encoding="utf-8") as file:
                before = file.read()
        except FileNotFoundError:
            before = ""
        except (OSError, ValueError) as error:
            raise Rejected(f"cannot read {path}: {error}") from error
        if before and not before.startswith("# Made by `onelun broker setup"):
            raise Rejected(f"{path} is not onelun's: move it away")
        return write_private(path, text, 0o644), text != before

    @contextmanager
    def _alone(self) -> Iterator[str]:
        """A directory for drafts, while no other setup works here. What one that was killed left there goes."""
        try:
            lock = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise Rejected(f"cannot open the directory {self.directory}: {error.strerror}") from error
        draft = None
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise Rejected(f"another setup is at work in {self.directory}: repeat when it has ended") from error
            for left in os.listdir(self.directory):
                if left.startswith(".draft-"):
                    shutil.rmtree(os.path.join(self.directory, left), ignore_errors=True)
            try:
                draft = tempfile.mkdtemp(prefix=".draft-", dir=self.directory)
            except OSError as error:
                raise Rejected(f"cannot write in {self.directory}: {error.strerror}") from error
            yield draft
        finally:
            if draft is not None:
                shutil.rmtree(draft, ignore_errors=True)
            os.close(lock)

    async def _authority(self) -> Certificate | None:
        """The authority's certificate; None before there is one. Raises Rejected for one that cannot sign."""
        path, key = self.file_of(AUTHORITY), self._key
        if not os.path.lexists(path):
            return None
        if not os.path.lexists(key):
            raise Rejected(f"{path} is there without {key}: run the setup where the authority's key is")
        if not has_its_key(path, key):
            raise Rejected(f"{key} is not the key of {path}: move both away, or put back what belongs together")
        return await read_certificate(path)

    async def _own(self, name: str, authority: Certificate | None) -> Certificate | None:
        """The certificate of `name`; None where there is none. Raises Rejected for a file that this authority did not make."""
        path = self.file_of(name)
        if not os.path.lexists(path):
            return None
        with_ours = authority is not None and await is_signed_by(path, authority.path) and has_its_key(path)
        found = await read_certificate(path) if with_ours else None
        if found is None or found.account != name:
            raise Rejected(f"{path} was not made by the authority in {self.directory}: move it away, then repeat")
        return found

    def _ends_within(self, certificate: Certificate, seconds: float) -> bool:
        return certificate.ends - self._now() < seconds

    async def _make_authority(self, former: Certificate | None, draft: str) -> None:
        """A certificate for the authority: with the key that there is, so that what that has signed stays good."""
        if not os.path.lexists(self._key):
            made = f"{draft}/key"
            await self._openssl("genpkey", "-algorithm", "EC", *_CURVE, "-out", made)
            write_private(self._key, _text(made))
        name = former.account if former else f"onelun authority {secrets.token_hex(4)}"
        made = f"{draft}/certificate"
        await self._request(draft, name, AUTHORITY, "-key", self._key, "-days", str(AUTHORITY_DAYS), "-out", made)
        write_private(self.file_of(AUTHORITY), _text(made), 0o644)

    async def _sign(self, name: str, hosts: Sequence[str], draft: str) -> None:
        """A certificate for `name` with a new key, both in one file."""
        key, made = f"{draft}/key", f"{draft}/certificate"
        by = ("-CA", self.file_of(AUTHORITY), "-CAkey", self._key, "-days", str(CERTIFICATE_DAYS))
        alternatives = [f"{'IP' if _is_address(host) else 'DNS'}:{host}" for host in hosts]
        named = ("-addext", f"subjectAltName={','.join(alternatives)}") if name == BROKER else ()
        await self._request(
            draft, name, name, *by, *named, "-newkey", "ec", *_CURVE, "-nodes", "-keyout", key, "-out", made
        )
        write_private(self.file_of(name), _text(made) + _text(key))

    async def _request(self, draft: str, name: str, kind: str, *words: str) -> None:
        configuration = write_private(f"{draft}/openssl.cnf", _CONFIGURATION.format(name=name))
        section = {AUTHORITY: "authority", BROKER: "broker"}.get(kind, "account")
        await self._openssl("req", "-x509", "-config", configuration, "-extensions", section, *words)

    async def _openssl(self, *words: str) -> None:
        await command.run("openssl", *words, timeout_s=OPENSSL_S)

    @property
    def _key(self) -> str:
        return os.path.join(self.directory, "ca.key")


def _checked_host(text: str) -> str:
    host = plain_host(text)
    # What ends in a number is meant as an address (RFC 3696, 2), and is a broken one here.
    is_name = _HOST.fullmatch(host) and ".." not in host and not host.rpartition(".")[2].isdigit()
    if not is_name and not _is_address(host):
        raise Rejected(f"{text[:80]!r} is no name or address of a host, which the broker's certificate could have")
    return host


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    # A zone means something on one machine alone.
    return "%" not in host


def _text(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()
