"""What bench compares with: one action as one would write it first, with click, lxml and pika, and no daemon."""

import base64
import json
import os
import sys
import uuid

import click
import pika
from lxml import etree


@click.command()
@click.argument("datastore_id")
def monitor(datastore_id: str) -> None:
    """Ask the NAS for a pool's capacity."""
    document = etree.fromstring(base64.b64decode(sys.stdin.read()))
    nas, pool = document.findtext("DATASTORE/TEMPLATE/ONELUN_POOLS").split("/")
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["ONELUN_AMQP_URL"]))
    channel = connection.channel()
    channel.confirm_delivery()
    replies = channel.queue_declare("", exclusive=True).method.queue
    properties = pika.BasicProperties(reply_to=replies, message_id=str(uuid.uuid4()))
    request = json.dumps({"action": "pool_capacity", "zpool": pool})
    channel.basic_publish("rocks.vm-manage", nas, request, properties, mandatory=True)
    _method, _properties, body = next(channel.consume(replies, auto_ack=True, inactivity_timeout=60))
    reply = json.loads(body)
    click.echo(f"USED_MB={reply['used_bytes'] >> 20}\nTOTAL_MB={reply['total_bytes'] >> 20}")
    connection.close()


if __name__ == "__main__":
    monitor()
