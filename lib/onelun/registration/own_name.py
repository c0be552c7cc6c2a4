"""What oned calls the machine that it runs on: the host in the arguments of transfers that end or begin at the front-end."""

from __future__ import annotations

import socket

from onelun.config import Frontend
from onelun.errors import Unreachable
from onelun.registration.syntax import parse


def own_name(text: str, path: str = "oned.conf") -> str:
    """HOSTNAME of oned.conf (`text`), or else the canonical name of this machine, as oned looks it up when it starts.

    That is the first name behind the machine's address in /etc/hosts, or what DNS says: the whole name as a rule, and not what
    `uname -n` prints (src/nebula/Nebula.cc, 6.10 to 7.4). Raises Rejected for a text that OpenNebula could not read, and
    Unreachable, saying what to do, for a machine that does not know its own name: oned does not start there.
    """
    named = [entry.value.text for entry in parse(text, path) if entry.name == "HOSTNAME" and entry.value]
    if named and named[-1]:
        return named[-1]
    name = socket.gethostname()
    try:
        found = socket.getaddrinfo(name, None, flags=socket.AI_CANONNAME)
    except OSError as error:
        raise Unreachable(
            f"this machine's name {name} has no address ({error.strerror}): add it to /etc/hosts"
        ) from error
    return found[0][3] or name


def findings(text: str, mine: Frontend, path: str = "oned.conf") -> list[str]:
    """A sentence when transfers would name a host that nobody serves: stopped and undeployed VMs go to the front-end."""
    try:
        name = own_name(text, path)
    except Unreachable as error:
        return [error.sentence]
    if name in mine.names or name in mine.hosts:
        return []
    return [f'oned calls this machine {name}, and frontend.names has no such name: add "{name}" to it']
