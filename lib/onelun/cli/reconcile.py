"""`onelun reconcile`: what oned says should exist against what NASes and hosts have, and the repair of what differs."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence

import click
import msgspec

from onelun.cli.check_frontend import session_of
from onelun.cli.frontend import link_of
from onelun.cli.serving import loaded, section
from onelun.config import Config, Frontend
from onelun.driver.api import Api
from onelun.driver.reconcile.comparing import witnesses
from onelun.driver.reconcile.differences import Difference, Type
from onelun.driver.reconcile.gathering import Gathering
from onelun.driver.reconcile.repairing import Outcome, Repairing, Report
from onelun.driver.reconcile.views import View
from onelun.errors import OnelunError
from onelun.rpc.client import Client

DIFFERS = 3
"""The exit status when something differs, or differs still; 1 is that nothing could be compared."""

# What a few are: more volumes than that go to the trash only by a number that a person has said.
_AT_MOST = 10


@click.command("reconcile")
@click.option("--apply", "repairs", is_flag=True, help="Repair what can be repaired safely.")
@click.option("--images", is_flag=True, help="With --apply, images that oned does not know go to the trash, too.")
@click.option(
    "--at-most",
    type=click.IntRange(min=0),
    default=_AT_MOST,
    show_default=True,
    help="With --apply, repair nothing when more volumes than that would go to the trash.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def reconcile(*, repairs: bool, images: bool, at_most: int, as_json: bool) -> None:
    """Name what differs between oned, the NASes and the hosts, a line each, with its repair. Changes nothing without --apply.

    Exits with 0 when nothing differs, 3 when something does (with --apply: still does), 1 when it could not be compared.
    """
    config = loaded()
    mine = section(config.frontend, "frontend")
    if mine.api is None:
        raise click.ClickException("frontend.api is not set: without oned nobody knows what should exist")
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        report = asyncio.run(_report(config, mine, mine.api, at_most if repairs else None, images=images))
    except OnelunError as error:
        raise click.ClickException(error.sentence) from error
    sys.stdout.write(_json(report) if as_json else _text(report))
    if report.left:
        raise click.exceptions.Exit(DIFFERS)


async def _report(config: Config, mine: Frontend, api: str, at_most: int | None, *, images: bool) -> Report:
    """What was compared; with `at_most`, also repaired."""
    link = link_of(config, mine)
    client = Client(link, config.limits)
    oned = Api(api, session_of(mine))
    try:
        await link.open()
        gathering = Gathering(mine, config.limits, oned, client)
        repairing = Repairing(gathering.view, config.limits, oned, client)
        if at_most is not None:
            return await repairing.apply(at_most=at_most, images=images)
        view, found = await repairing.look()
        return Report(view, (), tuple(found))
    finally:
        await client.close()
        await link.close()


def _text(report: Report) -> str:
    lines = [
        f"{'failed' if each.failed else 'repaired'}: {_line(each.difference, each.failed)}" for each in report.tried
    ]
    lines += _table(report.left) if report.left else [f"nothing differs: {_compared(report.view)}"]
    return "\n".join(lines) + "\n"


def _line(difference: Difference, failed: str | None) -> str:
    where = f" on {difference.host}" if difference.host else ""
    return f"{difference.type} {difference.what}{where}: {failed or difference.todo}"


def _table(differences: Sequence[Difference]) -> list[str]:
    """One line a difference, in columns: type, what, host, why and, behind an arrow, the repair or what to look at."""
    rows = [(str(each.type), each.what, each.host or "-") for each in differences]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        + f"  {each.why} {'=>' if each.repair else '--'} {each.todo}"
        for row, each in zip(rows, differences, strict=True)
    ]


def _compared(view: View) -> str:
    images = sum(image is not None for image in view.oned.images.values())
    vms = sum(vm is not None for vm in view.oned.vms.values())
    volumes = sum(len(stock.volumes) for stock in view.answered().values())
    hosts = sum(view.host(agent) is not None for agent in view.hosts)
    return f"{images} images, {vms} VMs, {volumes} volumes on {len(view.answered())} NASes, {hosts} hosts compared"


def _json(report: Report) -> str:
    document = {
        "differences": [_object(each) for each in report.left],
        "tried": [_outcome(each) for each in report.tried],
        "witnesses": witnesses(report.view),
    }
    return msgspec.json.format(msgspec.json.encode(document)).decode() + "\n"


def _object(difference: Difference) -> dict[str, object]:
    return {
        "type": difference.type,
        "what": difference.what,
        "host": difference.host or None,
        "why": difference.why,
        "repairable": difference.repair is not None,
        "needs_images": difference.repair is not None and difference.type is Type.IMAGE_UNKNOWN,
        "todo": difference.todo,
    }


def _outcome(outcome: Outcome) -> dict[str, object]:
    return {**_object(outcome.difference), "failed": outcome.failed}
