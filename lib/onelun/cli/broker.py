"""`onelun broker`: prepare RabbitMQ."""

from __future__ import annotations

import asyncio

import click

from onelun.errors import OnelunError
from onelun.rpc.address import parse_address
from onelun.rpc.setup import Broker, UrlDirectory, grants


@click.group()
def broker() -> None:
    """Prepare the message broker, RabbitMQ."""


@broker.command()
@click.option("--frontend", "frontends", multiple=True, help="A frontend's user name. May be repeated.")
@click.option("--nas", multiple=True, help="The name of a NAS agent. May be repeated.")
@click.option("--compute", multiple=True, help="The name of a compute agent. May be repeated.")
@click.option("--vhost", default="/", show_default=True, help="The broker's virtual host.")
@click.option("--url-dir", default="/etc/onelun/broker", show_default=True, help="Where each user's AMQP URL goes.")
@click.option("--broker-address", default="127.0.0.1:5672", show_default=True, help="HOST:PORT in those URLs.")
@click.option("--tls/--no-tls", default=False, help="Whether those URLs are amqps://.")
@click.option("--rabbitmqctl", default="rabbitmqctl", show_default=True, help="The broker's own tool.")
def setup(
    frontends: tuple[str, ...],
    nas: tuple[str, ...],
    compute: tuple[str, ...],
    vhost: str,
    url_dir: str,
    broker_address: str,
    tls: bool,  # noqa: FBT001 - click passes it by name
    rabbitmqctl: str,
) -> None:
    """Make the exchange, a user for each role with what it may do, and a file with each user's AMQP URL.

    Name all agents each time: a NAS may ask the compute nodes that are named with it. Repeating it keeps the passwords
    that the URL files have.
    """
    try:
        granted = grants(frontends, nas, compute)
        if not granted:
            raise click.UsageError("name at least one --frontend, --nas or --compute")
        directory = UrlDirectory(url_dir)
        passwords = {grant.user: directory.password_of(grant.user) for grant in granted}
        parse_address(f"{'amqps' if tls else 'amqp'}://user:password@{broker_address}/")
        users = asyncio.run(Broker(rabbitmqctl, vhost).set_up(granted, passwords))
        for user, password in passwords.items():
            click.echo(directory.write(user, password, address=broker_address, vhost=vhost, tls=tls))
    except OnelunError as error:
        raise click.ClickException(error.sentence) from error
    if "guest" in users:
        click.echo(
            "The user guest still exists and may do everything on the broker's own machine:"
            " remove it with `rabbitmqctl delete_user guest` when nothing else uses it.",
            err=True,
        )
