"""The parts of `onelun frontend check`: what OpenNebula was told, what is under remotes, who serves, who is out of reach."""

from __future__ import annotations

import os
import pwd
from functools import partial

from onelun.beneath import owner_of
from onelun.cli.check import Part
from onelun.cli.register import release_of
from onelun.config import Config, Frontend
from onelun.driver.api import Api
from onelun.driver.asking import Asker
from onelun.driver.checking import Checking
from onelun.frontend import reach
from onelun.registration import live_snapshots, oned_conf, own_name, scripts
from onelun.registration.place import Place
from onelun.registration.rewriting import read
from onelun.registration.wanted import DRIVER, has_modes, tm_mad_conf


def parts_of(config: Config, mine: Frontend, place: Place, asker: Asker) -> dict[str, Part]:
    """The parts by what they look at, in the order in which an operator puts them right."""
    parts: dict[str, Part] = {
        "oned.conf": partial(_oned_conf, place, mine),
        "vmm_execrc": partial(_live_snapshots, place, mine),
        "scripts": partial(_scripts, place, mine),
        "socket": partial(_socket, mine),
    }
    if mine.api is None:
        return {**parts, "oned": _no_api}
    checking = Checking(mine, Api(mine.api, session_of(mine)), asker, DRIVER)
    return {**parts, "oned": partial(_oned, checking, place, mine)}


def session_of(mine: Frontend) -> str:
    """The file of oned's session. Root looks at the one that the frontend uses, in its owner's home."""
    if os.getuid() or not mine.api_auth.startswith("~/"):
        return mine.api_auth
    return os.path.join(pwd.getpwuid(owner_of(mine.owner).uid).pw_dir, mine.api_auth[2:])


async def _oned_conf(place: Place, mine: Frontend) -> list[str]:
    text = read(place.oned_conf)
    found = oned_conf.findings(text, release_of(mine.opennebula_version, place), place.oned_conf)
    return found + own_name.findings(text, mine, place.oned_conf)


async def _live_snapshots(place: Place, mine: Frontend) -> list[str]:
    if not has_modes(release_of(mine.opennebula_version, place)):
        return []
    return live_snapshots.findings(read(place.vmm_execrc), place.vmm_execrc)


async def _scripts(place: Place, mine: Frontend) -> list[str]:
    return scripts.findings(place.remotes, scripts.shipped(), owner_of(mine.owner).uid)


async def _socket(mine: Frontend) -> list[str]:
    return reach.findings(os.path.abspath(mine.socket), owner_of(mine.owner).uid)


async def _oned(checking: Checking, place: Place, mine: Frontend) -> list[str]:
    release = release_of(mine.opennebula_version, place)
    # In this order, so that a oned that does not answer is told once.
    return [*await checking.release(), *await checking.hosts(), *await checking.datastores(tm_mad_conf(release))]


async def _no_api() -> list[str]:
    return [
        "frontend.api is not set, so that oned cannot be asked about hosts and VMs: http://127.0.0.1:2633/RPC2 as a rule"
    ]
