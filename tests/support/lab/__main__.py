"""`scripts/lab`: build, run, up, status, exec, kill, reboot, cut, heal, down, leaks, test."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence

import click
from tests.support.lab import cables, guests, record
from tests.support.lab.apart import fork_inside, wait_for
from tests.support.lab.calls import answers, pass_through
from tests.support.lab.machine import KINDS, Guest, machine
from tests.support.lab.place import CHECKOUT, FRONT, HOSTS, MACHINES, Lab, LabError, default_dir
from tests.support.lab.shell import environment
from tests.support.lab.teardown import down, left_of
from tests.support.sandbox.place import SandboxError
from tests.support.sandbox.processes import run

_STARTED = time.monotonic()
_number = click.option("--id", "number", type=int, help="Which lab, 0 to 38.")
_guest = click.argument("host", type=click.Choice(MACHINES))


def say(text: str) -> None:
    """A line of progress."""
    click.echo(f"{time.monotonic() - _STARTED:5.1f} s  {text}", err=True)


@click.group()
def lab() -> None:
    """Guests with kernels of their own: LVM-thin, ZFS, LIO and open-iscsi on one machine."""


@lab.command()
@click.option("--refresh", is_flag=True, help="Ask the package sources for newer packages first.")
@click.argument("kinds", nargs=-1, type=click.Choice(KINDS))
def build(kinds: tuple[str, ...], *, refresh: bool) -> None:
    """Make what guests of these KINDS boot from, unless the cache has it; all kinds without a word."""
    # Here and below, what takes long to load is left to who needs it: tests start `exec` hundreds of times.
    from tests.support.lab import root as roots

    root = roots.build(say, refresh=refresh)
    for kind in kinds or KINDS:
        machine(kind).build(root, say)
    click.echo(root)


@lab.command("run", context_settings={"ignore_unknown_options": True})
@click.option("--disk", "disks", multiple=True, metavar="SIZE", help="An empty data disk, such as 2G; may be repeated.")
@click.option("--memory", default=512, show_default=True, help="Its memory in MiB.")
@click.option("--limit", "limit_s", default=600.0, show_default=True, help="Seconds that the command may take.")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("argv", nargs=-1, required=True)
def run_(kind: str, argv: tuple[str, ...], disks: tuple[str, ...], memory: int, limit_s: float) -> None:
    """Run a command in a throw-away guest: scripts/lab run [--disk 2G] uml -- CMD...

    The checkout is /checkout there; data disks are in $ONELUN_LAB_DISKS (/dev/ubdb, /dev/ubdc ...).
    """
    from tests.support.lab import root as roots
    from tests.support.lab.single import run_once

    root = roots.build(say)
    machine(kind).build(root, say)
    sys.exit(run_once(kind, argv, disks, memory, limit_s, say, root))


@lab.command("up")
@_number
@click.option("--any", "anywhere", is_flag=True, help="Take any free number, and print it.")
@click.option("--owner", type=int, help="The process it is for: when that is gone, a plain `down` ends it.")
@click.option("--engine", type=click.Choice(["lvm", "zfs"]), default="lvm", show_default=True, help="Of the pool.")
@click.option("--exporter", type=click.Choice(["lio", "tgt"]), default="lio", show_default=True, help="Of the NAS.")
@click.option("--memory", default=512, show_default=True, help="Of each guest, in MiB.")
@click.option("--finish-s", type=float, help="How long an action may take that copies nothing; 120 s unless told.")
@click.option("--accept-s", type=float, help="How long a caller waits until its request is taken; 5 s unless told.")
@click.option("--bare", is_flag=True, help="Guests, pool and services only: no broker, agents, frontend.")
@click.option(
    "--clean", is_flag=True, help="Nothing of onelun's in any guest, and one more, `one`; broker and pool are there."
)
def up_(
    number: int | None,
    owner: int | None,
    engine: str,
    exporter: str,
    memory: int,
    finish_s: float | None,
    accept_s: float | None,
    *,
    anywhere: bool,
    bare: bool,
    clean: bool,
) -> None:
    """Start nas1, node1, node2 on a bridge of their own, and onelun on them."""
    from tests.support.lab.startup import Variant, up

    if number is not None and number not in range(39):
        raise LabError("a lab's number is 0 to 38")
    limits = {name: value for name, value in (("finish_s", finish_s), ("accept_s", accept_s)) if value is not None}
    place = up(None if anywhere else number or 0, owner, Variant(engine, exporter, bare, memory, limits, clean), say)
    if anywhere:
        click.echo(place.number)
    say(f"lab {place.number} is up in {place.dir}")


@lab.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@_number
@click.option("--limit", "limit_s", default=120.0, show_default=True, help="Seconds that it may take.")
@click.argument("host", type=click.Choice(HOSTS))
@click.argument("argv", nargs=-1, required=True)
def exec_(number: int | None, limit_s: float, host: str, argv: tuple[str, ...]) -> None:
    """Run a command on HOST (front, nas1, node1, node2) with our stdin, stdout and status."""
    place = _standing(number)
    if host == FRONT:
        _inside(
            place,
            lambda: os.execvpe("timeout", ["timeout", "-k5", str(limit_s), *argv], os.environ | environment(place)),
        )  # type: ignore[func-returns-value]
    _inside(place, lambda: pass_through(place, host, argv, limit_s))


@lab.command()
@_number
def env(number: int | None) -> None:
    """Print what a shell needs to run driver scripts against it: eval "$(scripts/lab env)"."""
    for name, value in environment(_standing(number)).items():
        click.echo(f"export {name}={shlex.quote(value)}")


@lab.command("kill")
@_number
@_guest
def kill_(number: int | None, host: str) -> None:
    """Cut the power of HOST."""
    place = _standing(number)
    _inside(place, lambda: guests.kill(_guest_of(place, host)))


@lab.command("reboot")
@_number
@click.option("--clean", is_flag=True, help="End its services in order first, instead of cutting its power.")
@_guest
def reboot_(number: int | None, host: str, *, clean: bool) -> None:
    """Switch HOST off, and on again (also after `kill`); returns when it takes commands."""
    place = _standing(number)

    def reboot(guest: Guest) -> None:
        (guests.stop if clean else guests.kill)(guest)
        guests.wait(guest, guests.start(guest, record.read(place)["root"]))

    _inside(place, lambda: reboot(_guest_of(place, host)))


@lab.command("cut")
@_number
@_guest
def cut_(number: int | None, host: str) -> None:
    """Pull the cable of HOST; commands still reach it."""
    place = _standing(number)
    _inside(place, lambda: cables.cut(_guest_of(place, host)))


@lab.command("heal")
@_number
@_guest
def heal_(number: int | None, host: str) -> None:
    """Plug it in again."""
    place = _standing(number)
    _inside(place, lambda: cables.heal(_guest_of(place, host)))


@lab.command("down")
@_number
def down_(number: int | None) -> None:
    """Remove it, whatever was killed before. Without a number: number 0, and all that were left behind."""
    for place in _meant(number):
        down(place)


@lab.command("status")
@_number
def status_(number: int | None) -> None:
    """Say which guests run and answer; fails when one does not."""
    place = _standing(number)

    def show() -> int:
        silent = 0
        for name in record.guests(place):
            process = record.process_of(place, name)
            state = "answers" if process and answers(place, name) else "is silent" if process else "is off"
            silent += state != "answers"
            click.echo(f"{name:6} {place.address(name):13} {state}   {place.log(name)}")
        sys.stdout.flush()
        return min(silent, 1)

    _inside(place, show)


@lab.command("leaks")
@_number
def leaks_(number: int | None) -> None:
    """Print what is left of one that should be down; fails when there is anything."""
    left = [f"lab {place.number}: {item}" for place in _meant(number) for item in left_of(place)]
    for item in left:
        click.echo(item)
    sys.exit(1 if left else 0)


@lab.command("test")
@click.argument("files", nargs=-1)
def test_(files: tuple[str, ...]) -> None:
    """Run the contract suites in guests and the bats files of tests/lab; or only FILES (`contract` means the suites)."""
    from tests.support.lab import root as roots
    from tests.support.lab.suites import run_all

    # Guests read the checkout and write nothing there: each program that starts in one would compile all that it loads.
    run(sys.executable, "-m", "compileall", "-q", f"{CHECKOUT}/lib", f"{CHECKOUT}/tests/support", timeout_s=300)
    root = roots.build(say)
    for kind in KINDS:
        machine(kind).build(root, say)
    sys.exit(0 if run_all(files, say) else 1)


def _meant(number: int | None) -> Sequence[Lab]:
    if number is not None:
        return [Lab(number, default_dir(number))]
    return list({place.number: place for place in (Lab(0, default_dir(0)), *record.abandoned())}.values())


def _guest_of(place: Lab, host: str) -> Guest:
    guests = record.guests(place)
    if host not in guests:
        raise LabError(f"lab {place.number} has no {host}: {', '.join(guests)}")
    return guests[host]


def _standing(number: int | None) -> Lab:
    place = Lab(number or 0, default_dir(number or 0))
    if not record.read(place).get("ready"):
        raise LabError(f"lab {place.number} is not up: scripts/lab up{f' --id {number}' if number else ''}")
    return place


def _inside(place: Lab, work: Callable[[], int | None]) -> None:
    """Do the work in the lab's namespaces and end with its status."""
    holder = record.holder(place)
    if holder is None:
        raise LabError(f"lab {place.number} has died: scripts/lab down --id {place.number}")
    child = fork_inside(holder.pid)
    if child:
        sys.exit(wait_for(child))
    status = 1
    try:
        status = work() or 0
    except SandboxError as error:
        click.echo(f"scripts/lab: {error}", err=True)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    try:
        lab(standalone_mode=False, prog_name="scripts/lab")
    except (SandboxError, click.ClickException) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else error
        click.echo(f"scripts/lab: {message}", err=True)
        sys.exit(1)
    except click.Abort:
        sys.exit(130)
