"""`scripts/sandbox`: up, env, down, status, restart, kill, leaks."""

from __future__ import annotations

import shlex
import sys
import time

import click
from tests.support.sandbox import record
from tests.support.sandbox.place import HOSTS, Place, SandboxError
from tests.support.sandbox.processes import recorded
from tests.support.sandbox.startup import Variant, kill, restart, up
from tests.support.sandbox.teardown import down, left_of

_number = click.option("--id", "number", type=click.IntRange(0, 199), help="Which sandbox, 0 to 199.")
_directory = click.option("--dir", "directory", type=click.Path(file_okay=False), help="Its directory.")
_PROCESSES = ("broker", "tgtd", *HOSTS, "frontend")


def _option(place: Place) -> str:
    """How the next command names this sandbox."""
    return f" --id {place.number}" if place.number else ""


@click.group()
def sandbox() -> None:
    """One machine as a whole onelun: a broker, one NAS, two compute nodes and a frontend."""


@sandbox.command("up")
@_number
@_directory
@click.option("--any", "anywhere", is_flag=True, help="Take any free number, and print it.")
@click.option("--owner", type=int, help="The process it is for: when that is gone, a plain `down` ends it.")
@click.option("--finish-s", type=float, help="How long an action may take that copies nothing; 120 s unless told.")
@click.option("--pool-on", type=click.Choice(["xfs", "btrfs"]), help="Give the pool a filesystem of its own.")
@click.option("--tls", is_flag=True, help="Go to the broker by TLS, with certificates in place of passwords.")
def up_(
    number: int | None,
    directory: str | None,
    *,
    anywhere: bool,
    owner: int | None,
    finish_s: float | None,
    pool_on: str | None,
    tls: bool,
) -> None:
    """Start it; repeated, it says that it is up."""
    started = time.monotonic()

    def say(text: str) -> None:
        click.echo(f"{time.monotonic() - started:5.1f} s  {text}", err=True)

    if not anywhere:
        place = record.find(number or 0, directory)
        if record.read(place).get("ready") and all(recorded(place, name) for name in _PROCESSES):
            click.echo(f"sandbox {place.number} is up in {place.dir}", err=True)
            return
    variant = Variant({"finish_s": finish_s} if finish_s else {}, pool_on, tls=tls)
    place = up(None if anywhere else number or 0, directory, owner, say, variant)
    if anywhere:
        click.echo(place.number)
    click.echo(
        f'sandbox {place.number} is up in {place.dir}. Now: eval "$(scripts/sandbox env{_option(place)})"', err=True
    )


@sandbox.command()
@_number
@_directory
def env(number: int | None, directory: str | None) -> None:
    """Print what a shell needs to work with it: eval "$(scripts/sandbox env)"."""
    place = _standing(number, directory)
    for name, value in environment(place).items():
        click.echo(f"export {name}={shlex.quote(value)}")
    click.echo(f'case ":$PATH:" in *:{place.path("bin")}:*) ;; *) export PATH={place.path("bin")}:"$PATH" ;; esac')


def environment(place: Place) -> dict[str, str]:
    """The variables of work by hand."""
    found = {
        "ONELUN_CONFIG": place.config("frontend"),
        "ONELUN_AMQP_URL": record.read(place)["url"],
        "ONELUN_SOCKET": place.frontend_socket,
        "ONELUN_SANDBOX": place.dir,
        "ONELUN_DATASTORES": place.datastores,
    }
    for host in HOSTS:
        holder = recorded(place, f"{host}.holder")
        if holder:
            found[f"ONELUN_{host.upper()}"] = f"nsenter -t {holder.pid} -n -m"
    return found


@sandbox.command("down")
@_number
@_directory
def down_(number: int | None, directory: str | None) -> None:
    """Remove it, whatever was killed before. Without a number: number 0, and all that were left behind."""
    for place in _meant(number, directory):
        down(place)
        if left := left_of(place):
            raise SandboxError(f"sandbox {place.number}: left behind: {'; '.join(left)}")


@sandbox.command()
@_number
@_directory
def status(number: int | None, directory: str | None) -> None:
    """Say which of its processes run; fails when one does not."""
    place = _standing(number, directory)
    dead = False
    for name in _PROCESSES:
        process = recorded(place, name)
        click.echo(f"{name:9} {f'running, pid {process.pid}' if process else 'not running'}   {place.log(name)}")
        dead = dead or process is None
    sys.exit(1 if dead else 0)


@sandbox.command("restart")
@_number
@_directory
@click.argument("role", type=click.Choice([*HOSTS, "frontend", "tgtd"]))
def restart_(number: int | None, directory: str | None, role: str) -> None:
    """End ROLE's process, if it runs, start it anew, and wait until it answers."""
    restart(_standing(number, directory), role)


@sandbox.command("kill")
@_number
@_directory
@click.argument("role", type=click.Choice(_PROCESSES))
def kill_(number: int | None, directory: str | None, role: str) -> None:
    """Kill ROLE's process as it is, and wait until it is gone, also for the broker."""
    kill(_standing(number, directory), role)


@sandbox.command()
@_number
@_directory
def leaks(number: int | None, directory: str | None) -> None:
    """Print what is left of one that should be down; fails when there is anything."""
    left = [f"sandbox {place.number}: {item}" for place in _meant(number, directory) for item in left_of(place)]
    for item in left:
        click.echo(item)
    sys.exit(1 if left else 0)


def _meant(number: int | None, directory: str | None) -> list[Place]:
    return record.to_end() if number is None and directory is None else [record.find(number or 0, directory)]


def _standing(number: int | None, directory: str | None) -> Place:
    place = record.find(number or 0, directory)
    if not record.read(place).get("ready"):
        raise SandboxError(f"sandbox {place.number} is not up: scripts/sandbox up{_option(place)}")
    return place


if __name__ == "__main__":
    try:
        sandbox(standalone_mode=False, prog_name="scripts/sandbox")
    except (SandboxError, click.ClickException) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else error
        click.echo(f"scripts/sandbox: {message}", err=True)
        sys.exit(1)
    except click.Abort:
        sys.exit(130)
