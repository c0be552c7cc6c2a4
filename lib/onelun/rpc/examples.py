"""Messages of the original protocol as they look on the wire, and a caller that knows nothing else; for docs/protocol.md."""

from __future__ import annotations

from onelun.rpc.message import (
    DelZvol,
    DevList,
    ListDev,
    ListZvols,
    MapZvol,
    Reply,
    Request,
    SetZvol,
    TearDown,
    UnmapZvol,
    ZvolAttached,
    ZvolDeleted,
    ZvolDetached,
    ZvolList,
    ZvolMapped,
    ZvolUnmapped,
)

# A caller of the bare protocol, which the tests run as it stands.
CALLER = """\
import json, os, uuid
import pika

connection = pika.BlockingConnection(pika.URLParameters(os.environ["ONELUN_AMQP_URL"]))
channel = connection.channel()
channel.confirm_delivery()


def ask(node, **request):
    queue = channel.queue_declare(f"rpc-{uuid.uuid4().hex}", exclusive=True).method.queue
    message_id = str(uuid.uuid4())
    properties = pika.BasicProperties(reply_to=queue, message_id=message_id)
    try:
        channel.basic_publish("rocks.vm-manage", node, json.dumps(request), properties, mandatory=True)
    except pika.exceptions.UnroutableError:
        raise SystemExit(f"no agent called {node} is connected")
    for _, got, body in channel.consume(queue, auto_ack=True):
        if got.correlation_id == message_id:
            channel.cancel()
            return json.loads(body)


print(ask("nas1", action="map_zvol", zvol="vm-1-vol", remotehost="node1", size="36"))
print(ask("nas1", action="list_zvols", name="vm-1-vol"))
print(ask("nas1", action="unmap_zvol", zvol="vm-1-vol"))
print(ask("nas1", action="del_zvol", zvol="vm-1-vol"))
connection.close()
"""

_TARGET = "iqn.2026-11.io.onelun.nas1:tank.vm-1-vol.e1"
_OTHERS = "iqn.2001-04.com.nas-0-0-vm-1-vol"
_UUID = "6b2f7a52-6a04-4e9b-9d0b-3a2f0c0a7a11"
EXAMPLES: tuple[tuple[Request, Reply], ...] = (
    (
        MapZvol(zvol="vm-1-vol", remotehost="node1", size="36"),
        ZvolMapped(
            bdev="/dev/loop0", device="/dev/onelun/nas1/tank/vm-1-vol", uuid=_UUID, size_bytes=36 << 30, epoch=1
        ),
    ),
    (UnmapZvol(zvol="vm-1-vol"), ZvolUnmapped()),
    (DelZvol(zvol="vm-1-vol"), ZvolDeleted()),
    (
        ListZvols(name="vm-1-vol"),
        ZvolList(body=[{"zvol": "vm-1-vol", "zpool": "tank", "remotehost": "node1", "iscsi_target": _TARGET}]),
    ),
    (SetZvol(target=_OTHERS, nas="nas-0-0"), ZvolAttached(bdev="/dev/loop0")),
    (TearDown(target=_OTHERS), ZvolDetached()),
    (ListDev(), DevList(body=[{"target": _TARGET, "bdev": "/dev/loop0"}])),
)
