"""A caller that knows the seed's protocol and nothing of onelun: map, list, unmap, delete a zvol, by pika alone."""

import json
import os
import uuid

import pika

connection = pika.BlockingConnection(pika.URLParameters(os.environ["ONELUN_AMQP_URL"]))
channel = connection.channel()
channel.confirm_delivery()
replies = channel.queue_declare("", exclusive=True).method.queue


def ask(node: str, **request: object) -> dict:
    """The one reply to a request."""
    properties = pika.BasicProperties(reply_to=replies, message_id=str(uuid.uuid4()))
    channel.basic_publish("rocks.vm-manage", node, json.dumps(request), properties, mandatory=True)
    _method, told, body = next(channel.consume(replies, auto_ack=True, inactivity_timeout=60))
    assert told is not None, f"{node} did not reply"
    assert told.correlation_id == properties.message_id
    return json.loads(body)


mapped = ask("nas1", action="map_zvol", zvol="seed-1", remotehost="node1", size="1")
assert (mapped["action"], mapped["status"]) == ("zvol_mapped", "success")
assert mapped["bdev"].startswith("/dev/")
rows = [row for row in ask("nas1", action="list_zvols", name="")["body"] if row["zvol"] == "seed-1"]
assert [row["remotehost"] for row in rows] == ["node1"]
assert any(mapped["bdev"] in json.dumps(row) for row in ask("node1", action="list_dev")["body"])
assert ask("nas1", action="del_zvol", zvol="seed-1")["status"] == "error"  # it is mapped
assert ask("nas1", action="unmap_zvol", zvol="seed-1")["action"] == "zvol_unmapped"
assert ask("nas1", action="del_zvol", zvol="seed-1")["action"] == "zvol_deleted"
assert ask("nas1", action="list_zvols", name="seed-1")["body"] == []
