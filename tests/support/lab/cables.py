"""The lab's network: a bridge for its hosts and one for the lab itself, in the lab's own network namespace."""

from __future__ import annotations

from tests.support.lab.machine import Guest
from tests.support.lab.place import FRONT, Lab
from tests.support.sandbox.processes import run

_HOSTS, _OWN = "hosts", "own"


def make_bridges(lab: Lab) -> None:
    """Both bridges, with the addresses of `front` and of the lab."""
    lines = ["link set lo up"]
    for bridge, address in ((_HOSTS, lab.address(FRONT)), (_OWN, lab.agent_address(FRONT))):
        lines += [f"link add {bridge} type bridge", f"addr add {address}/24 dev {bridge}", f"link set {bridge} up"]
    _ip(lines)


def plug_in(guest: Guest) -> None:
    """Make a guest's taps, which are there before it starts and stay when it dies."""
    lines = []
    for tap, bridge in ((guest.tap, _HOSTS), (guest.agent_tap, _OWN)):
        lines += [f"tuntap add dev {tap} mode tap", f"link set {tap} master {bridge} up"]
    _ip(lines)


def cut(guest: Guest) -> None:
    """Take a guest off the hosts' bridge. (Setting its tap down would break user-mode-linux's side of it for good.)"""
    _ip([f"link set {guest.tap} nomaster"])


def heal(guest: Guest) -> None:
    """Put it back."""
    _ip([f"link set {guest.tap} master {_HOSTS}"])


def _ip(lines: list[str]) -> None:
    run("ip", "-batch", "-", stdin="\n".join(lines) + "\n")
