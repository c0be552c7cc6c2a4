"""How a request or a reply is read from the body of a message, and written to one.

Unknown fields are ignored; an unknown word in `needs` is refused, so that an older agent never drops a condition that the
caller relies on.
"""

from __future__ import annotations

from typing import Any

import msgspec

from onelun.errors import ProtocolError
from onelun.rpc.schema import Reply, Request, name_of
from onelun.rpc.verbs import BY_NAME

# A piece of a file takes 1.4 MB, a thousand attachments half a megabyte. The broker itself passes 128 MiB on (max_message_size).
LONGEST = 16 << 20
# The words that `needs` may carry to an agent of this release.
CONDITIONS = frozenset(
    {"owner", "filesystem", "uuid", "epoch", "identity", "readonly", "placement", "force", "stays", "attributes"}
)


def decode_request(body: bytes) -> Request:
    """The request in `body`.

    Raises ProtocolError for what is larger than any request, is no JSON object, has no or an unknown `action`, lacks a field, has
    one of the wrong type or a whole number of more than 64 bits, or needs what this release does not know.
    """
    if len(body) > LONGEST:
        raise ProtocolError(f"the message has {len(body)} bytes: no request has more than {LONGEST}")
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"the message is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ProtocolError("the message is no JSON object")
    action = document.get("action")
    if not isinstance(action, str):
        raise ProtocolError("the message has no action")
    verb = BY_NAME.get(action)
    if verb is None:
        raise ProtocolError(f"action_unsupported: {action[:60]!r} is no action of this agent")
    if not _has_64_bits(document):
        raise ProtocolError(f"{action}: a number in it has more than 64 bits")
    try:
        request = msgspec.convert(document, verb.request)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"{action}: {error}") from error
    if unknown := set(request.needs) - CONDITIONS:
        raise ProtocolError(f"{action} needs {', '.join(sorted(unknown))}, which this agent does not know: upgrade it")
    return request


def _has_64_bits(document: object) -> bool:
    """Whether each whole number in it fits where numbers are kept: SQLite, the kernel, other JSON readers."""
    left = [document]
    while left:
        match left.pop():
            case int(number) if not -(1 << 63) <= number < 1 << 63:
                return False
            case list(inner):
                left += inner
            case dict(fields):
                left += fields.values()
    return True


def encode(message: Request | Reply) -> bytes:
    """The message as JSON. `bytes` become base64."""
    return msgspec.json.encode(message)


def decode_reply(document: dict[str, Any], kind: type[Reply]) -> Reply:
    """The successful reply in `document`. Raises ProtocolError when it is another one or malformed."""
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"the reply to a request is not a {name_of(kind)}: {error}") from error
