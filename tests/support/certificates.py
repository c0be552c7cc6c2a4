"""Certificates that onelun itself would not make: with any dates, of any authority."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

# `openssl ca` alone lets one say when a certificate begins.
_CA = """\
[ca]
default_ca = here
[here]
database = {work}/index
serial = {work}/serial
new_certs_dir = {work}
default_md = sha256
unique_subject = no
policy = any
[any]
commonName = supplied
"""


def openssl(*arguments: object) -> str:
    """What `openssl` prints."""
    done = subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, text=True, timeout=30)
    return done.stdout


def dated(
    authority: Path, account: str, work: Path, *, begins_s: float, ends_s: float, host: str | None = None
) -> Path:
    """A certificate of `account` with its key, signed by the authority in that directory; of a broker, for its `host`.

    It begins and ends so many seconds from now; `work` is an empty directory, where it is made.
    """
    (work / "index").touch()
    (work / "serial").write_text("01\n")
    (work / "ca.cnf").write_text(_CA.format(work=work))
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", work / "key")
    openssl("req", "-new", *new, "-subj", f"/CN={account}", "-out", work / "request")
    named: tuple[object, ...] = ()
    if host is not None:
        (work / "names").write_text(f"subjectAltName=DNS:{host}\n")
        named = ("-extfile", work / "names")
    openssl(
        *("ca", "-batch", "-notext", "-config", work / "ca.cnf"),
        *("-cert", authority / "ca.pem", "-keyfile", authority / "ca.key"),
        *(
            "-startdate",
            _asn1(begins_s),
            "-enddate",
            _asn1(ends_s),
            "-in",
            work / "request",
            "-out",
            work / "certificate",
        ),
        *named,
    )
    made = work / f"{account}.pem"
    made.write_text((work / "certificate").read_text() + (work / "key").read_text())
    made.chmod(0o600)
    return made


def _asn1(from_now_s: float) -> str:
    return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + from_now_s))
