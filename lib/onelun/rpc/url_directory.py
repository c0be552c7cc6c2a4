"""What `onelun broker setup` leaves for each user: a file with its AMQP URL."""

from __future__ import annotations

import os
import secrets
from urllib.parse import SplitResult, quote, unquote, urlencode, urlsplit

from onelun.errors import Rejected
from onelun.rpc.private_file import make_private_directory, write_private


class UrlDirectory:
    """A directory with one AMQP URL a file, each named after its user and readable by its owner alone."""

    def __init__(self, path: str) -> None:
        self._path = path

    def file_of(self, user: str) -> str:
        """Where the URL of `user` is."""
        return os.path.join(self._path, f"{user}.url")

    def password_of(self, user: str) -> str:
        """The password in the user's file; a fresh one when there is none. Raises Rejected for another's file."""
        found = self._read(user)
        return unquote(found.password) if found and found.password else secrets.token_urlsafe(24)

    def check_certificate_may_replace(self, user: str) -> None:
        """Raise Rejected for a URL with TLS and a password: a cloud with certificates of its own, or another's file."""
        found = self._read(user)
        if found and found.scheme == "amqps" and found.password:
            raise Rejected(
                f"{self.file_of(user)} has a password for TLS: repeat with --tls-passwords to keep passwords,"
                " or move that file away to change to certificates"
            )

    def write(self, user: str, password: str | None, *, address: str, vhost: str, tls: dict[str, str] | None) -> str:
        """Write the user's file, replacing it at once, and return its path.

        `tls` has the options of the URL for TLS, None for a URL without it; no `password` is a login by certificate.
        """
        login = quote(user, safe="") + ("" if password is None else f":{quote(password, safe='')}")
        options = f"?{urlencode(tls, safe='/')}" if tls else ""
        scheme = "amqp" if tls is None else "amqps"
        make_private_directory(self._path)
        return write_private(self.file_of(user), f"{scheme}://{login}@{address}/{quote(vhost, safe='')}{options}\n")

    def _read(self, user: str) -> SplitResult | None:
        try:
            with open(self.file_of(user), encoding="utf-8") as file:
                found = urlsplit(file.read().strip())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise Rejected(f"cannot read {self.file_of(user)}: {error}") from error
        if found.scheme not in ("amqp", "amqps") or unquote(found.username or "") != user:
            raise Rejected(f"{self.file_of(user)} has no AMQP URL of {user}: it is somebody else's, move it away")
        return found
