"""The scripts under OpenNebula's remotes: whether those of this release are there, whole, and OpenNebula's user's to run."""

from __future__ import annotations

import os
import pwd
import stat
import sys

import onelun

ROOMS = ("datastore", "tm")
_AGAIN = "`install.sh --frontend` puts it right"


def shipped() -> str | None:
    """Where the scripts of this very release are: beside the environment that runs, or in the checkout; None when nowhere."""
    beside = f"{os.path.dirname(sys.prefix)}/remotes"
    checkout = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(onelun.__file__))))
    for directory in (beside, checkout):
        if all(os.path.isdir(f"{directory}/{room}/onelun") for room in ROOMS):
            return directory
    return None


def findings(remotes: str, original: str | None, owner: int) -> list[str]:
    """One sentence for each thing that is wrong below `remotes`; `owner` is the user who runs the scripts.

    `original` holds the scripts of this release; None when it is not known what they should be.
    """
    found: list[str] = []
    for room in ROOMS:
        directory = f"{remotes}/{room}/onelun"
        if not os.path.isdir(directory):
            found.append(f"{directory} is missing: {_AGAIN}")
            continue
        names = {name for name in os.listdir(directory) if name != "__pycache__"}
        for name in sorted(names):
            found += _modes(f"{directory}/{name}", owner)
        if original is not None:
            found += _differing(directory, names, f"{original}/{room}/onelun")
    return found


def _modes(path: str, owner: int) -> list[str]:
    facts = os.lstat(path)
    if stat.S_ISLNK(facts.st_mode):
        return [f"{path} is a symbolic link, whose end `onehost sync` would copy to every host: {_AGAIN}"]
    if facts.st_uid not in (0, owner):
        return [f"{path} belongs to user {_name(facts.st_uid)}, not to {_name(owner)}: {_AGAIN}"]
    if facts.st_mode & stat.S_IWOTH:
        return [f"{path} may be written by everybody: {_AGAIN}"]
    wanted = stat.S_IRUSR if path.endswith(".py") else stat.S_IRUSR | stat.S_IXUSR
    if facts.st_uid == 0 and owner != 0:
        wanted = wanted >> 6  # root's file: everybody's rights are what the owner of the scripts has
    if facts.st_mode & wanted != wanted:
        return [f"{path} cannot be run by {_name(owner)} (mode {stat.S_IMODE(facts.st_mode):o}): {_AGAIN}"]
    return []


def _differing(directory: str, names: set[str], original: str) -> list[str]:
    wanted = {name for name in os.listdir(original) if name != "__pycache__"}
    found = [f"{directory}/{name} is missing: {_AGAIN}" for name in sorted(wanted - names)]
    other = sorted(names - wanted) + sorted(
        name for name in names & wanted if _content(f"{directory}/{name}") != _content(f"{original}/{name}")
    )
    if other:
        found.append(f"{directory} has scripts of another release ({', '.join(other)}): {_AGAIN}")
    return found


def _content(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
