"""`onelun broker`: prepare RabbitMQ."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import click

from onelun.errors import OnelunError
from onelun.rpc.address import Address, parse_address
from onelun.rpc.authority import AUTHORITY, BROKER, Authority, rabbitmq_conf
from onelun.rpc.setup import Broker, Grant, grants
from onelun.rpc.url_directory import UrlDirectory

# Where RabbitMQ has what it reads of ours; the commands that are told put it there.
_RABBITMQ = "/etc/rabbitmq/onelun"


@click.group()
def broker() -> None:
    """Prepare the message broker, RabbitMQ."""


@broker.command()
@click.option("--frontend", "frontends", multiple=True, help="A frontend's user name. May be repeated.")
@click.option("--nas", multiple=True, help="The name of a NAS agent. May be repeated.")
@click.option("--compute", multiple=True, help="The name of a compute agent. May be repeated.")
@click.option("--vhost", default="/", show_default=True, help="The broker's virtual host.")
@click.option("--url-dir", default="/etc/onelun/broker", show_default=True, help="Where each user's AMQP URL goes.")
@click.option(
    "--broker-address", help="HOST:PORT in those URLs; 127.0.0.1:5672, with TLS this machine's name and 5671."
)
@click.option("--tls/--no-tls", default=False, help="TLS, and a certificate for each user by which it logs in.")
@click.option("--tls-dir", default="/etc/onelun/broker/tls", show_default=True, help="Where the certificates are made.")
@click.option("--tls-path", default="/etc/onelun/tls", show_default=True, help="Where the URLs say that they are.")
@click.option("--tls-name", "names", multiple=True, help="Another name or address of the broker. May be repeated.")
@click.option("--tls-passwords", is_flag=True, help="TLS with passwords: the broker has a certificate of your own.")
@click.option("--rabbitmqctl", default="rabbitmqctl", show_default=True, help="The broker's own tool.")
def setup(
    frontends: tuple[str, ...],
    nas: tuple[str, ...],
    compute: tuple[str, ...],
    vhost: str,
    url_dir: str,
    broker_address: str | None,
    tls: bool,  # noqa: FBT001 - click passes it by name
    tls_dir: str,
    tls_path: str,
    names: tuple[str, ...],
    tls_passwords: bool,  # noqa: FBT001 - as above
    rabbitmqctl: str,
) -> None:
    """Make the exchange, a user for each role with what it may do, and a file with each user's AMQP URL.

    Name all agents each time: a NAS may ask the compute nodes that are named with it. Repeating it keeps the passwords
    that the URL files have, and the certificates that do not end within 60 days.
    """
    if tls and tls_passwords:
        raise click.UsageError("--tls is TLS with certificates, --tls-passwords is TLS without them: give one")
    try:
        granted = grants(frontends, nas, compute)
        if not granted:
            raise click.UsageError("name at least one --frontend, --nas or --compute")
        directory = UrlDirectory(url_dir)
        address = broker_address or (f"{socket.getfqdn()}:5671" if tls or tls_passwords else "127.0.0.1:5672")
        where = parse_address(f"{'amqps' if tls or tls_passwords else 'amqp'}://user:password@{address}/")
        passwords: dict[str, str] = {}
        node, authority = Broker(rabbitmqctl, vhost), None
        if tls:
            for grant in granted:
                directory.check_certificate_may_replace(grant.user)
            authority = Authority(tls_dir)
            authority.prepare([grant.user for grant in granted], [where.host, *names])
        else:
            passwords = {grant.user: directory.password_of(grant.user) for grant in granted}
        # Before anything is made: what is made is told once.
        asyncio.run(node.check())
        if authority is not None:
            _certify(authority, granted, where, names, tls_path)
        users = asyncio.run(node.set_up(granted, passwords))
        for grant in granted:
            files = {"cafile": f"{tls_path}/ca.pem", "certfile": f"{tls_path}/{grant.user}.pem"} if tls else {}
            options = files if tls or tls_passwords else None
            click.echo(
                directory.write(grant.user, passwords.get(grant.user), address=address, vhost=vhost, tls=options)
            )
    except OnelunError as error:
        raise click.ClickException(error.sentence) from error
    if users.unnamed:
        click.echo(
            f"The broker also has {', '.join(users.unnamed)}: agents that are not named lose what concerns the others."
            " Repeat with all names; `rabbitmqctl delete_user` removes one that is given up.",
            err=True,
        )
    if users.guest:
        click.echo(
            "The user guest still exists and may do everything on the broker's own machine:"
            " remove it with `rabbitmqctl delete_user guest` when nothing else uses it.",
            err=True,
        )


def _certify(authority: Authority, granted: Sequence[Grant], where: Address, names: Sequence[str], path: str) -> None:
    """Make or renew the certificates, and tell what belongs where."""
    users = [grant.user for grant in granted]
    made = asyncio.run(authority.make(users, [where.host, *names]))
    conf, changed = authority.write_conf(rabbitmq_conf(where.port, _RABBITMQ))
    ca = authority.file_of(AUTHORITY)
    lines = [f"Made: {', '.join(authority.file_of(name) for name in made)}" if made else "Every certificate is good."]
    if changed or AUTHORITY in made or BROKER in made:
        lines += [
            "On the broker's machine:",
            f"  install -D -m 0640 -g rabbitmq -t {_RABBITMQ} {ca} {authority.file_of(BROKER)}",
        ]
        lines += (
            [
                f"  install -D -m 0644 {conf} /etc/rabbitmq/conf.d/onelun.conf",
                "  rabbitmq-plugins enable rabbitmq_auth_mechanism_ssl && systemctl restart rabbitmq-server",
            ]
            if changed
            else ["  rabbitmqctl eval 'ssl:clear_pem_cache().'   # or wait a few minutes; nothing needs a restart"]
        )
    lines += [
        f"On the machine of {user}, into {path}, readable by who runs the role alone: {ca} {authority.file_of(user)}"
        for user in users
        if AUTHORITY in made or user in made
    ]
    click.echo("\n".join(lines), err=True)
