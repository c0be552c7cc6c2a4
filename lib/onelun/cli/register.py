"""`onelun register`: print, apply or take back the few lines by which OpenNebula knows onelun."""

from __future__ import annotations

import difflib
import os

import click

from onelun.config import load
from onelun.driver.frame import parse_version
from onelun.errors import OnelunError, Rejected
from onelun.registration import live_snapshots, oned_conf
from onelun.registration.place import Place, place_of
from onelun.registration.rewriting import read, replace
from onelun.registration.wanted import Release, has_modes


@click.command("register")
@click.option("--oned-conf", "oned_conf_path", help="oned's configuration; /etc/one/oned.conf, or below ONE_LOCATION.")
@click.option(
    "--vmm-execrc", "vmm_execrc_path", help="The hypervisor drivers' settings; vmm_exec/vmm_execrc beside it."
)
@click.option(
    "--opennebula-version", "version", help="The release, such as 7.0; found by itself where it is installed."
)
@click.option("--remove", is_flag=True, help="Take onelun out again.")
@click.option(
    "--apply", is_flag=True, help="Change the files, keeping a copy of each; otherwise the change is printed."
)
def register(
    oned_conf_path: str | None,
    vmm_execrc_path: str | None,
    version: str | None,
    remove: bool,  # noqa: FBT001 - click passes it by name
    apply: bool,  # noqa: FBT001 - as above
) -> None:
    """Make OpenNebula know onelun: add it to oned.conf and vmm_execrc, and leave every other byte as it is.

    May be repeated. oned reads both files when it starts; run this on each front-end.
    """
    place = place_of(os.environ)
    first, second = oned_conf_path or place.oned_conf, vmm_execrc_path or place.vmm_execrc
    try:
        texts = {first: read(first), second: read(second)}
        changed = _removed(texts, first, second) if remove else _added(texts, first, second, release_of(version, place))
        differing = {path: text for path, text in changed.items() if text != texts[path]}
        for path, text in differing.items():
            _apply(path, texts[path], text) if apply else _print(path, texts[path], text)
    except OnelunError as error:
        raise click.ClickException(error.sentence) from error
    for path in changed.keys() - differing.keys():
        click.echo(f"{path}: {'has nothing of onelun' if remove else 'has all of onelun'}", err=True)
    if differing:
        then = "restart OpenNebula (systemctl restart opennebula), and do the same on every other front-end"
        click.echo(
            f"Now {then}." if apply else f"With --apply this is done, with a copy of each file; then {then}.", err=True
        )


def release_of(version: str | None, place: Place) -> Release:
    """The release as it is given, or as the files of OpenNebula or onelun's configuration tell. Raises Rejected otherwise."""
    found = parse_version(version or place.release() or _configured())
    if found is None:
        raise Rejected(f"{place.remotes}/VERSION does not tell OpenNebula's release: give it with --opennebula-version")
    return found


def _configured() -> str | None:
    try:
        frontend = load().config.frontend
    except OnelunError:
        return None
    return frontend.opennebula_version if frontend else None


def _added(texts: dict[str, str], first: str, second: str, release: Release) -> dict[str, str]:
    changed = {first: oned_conf.registered(texts[first], release, first)}
    if has_modes(release):
        changed[second] = live_snapshots.registered(texts[second], second)
    return changed


def _removed(texts: dict[str, str], first: str, second: str) -> dict[str, str]:
    return {
        first: oned_conf.unregistered(texts[first], first),
        second: live_snapshots.unregistered(texts[second], second),
    }


def _apply(path: str, before: str, after: str) -> None:
    backup = replace(path, before, after)
    click.echo(f"{path}: changed; as it was: {backup}", err=True)


def _print(path: str, before: str, after: str) -> None:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), path, path, n=1, lineterm="")
    click.echo("\n".join(lines).encode("utf-8", "surrogateescape"))
