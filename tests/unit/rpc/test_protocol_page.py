from __future__ import annotations

import json
from pathlib import Path

import pytest

from onelun.rpc.describe import page
from onelun.rpc.examples import EXAMPLES
from onelun.rpc.message import BY_REQUEST, VERBS, Verb, decode_reply, decode_request, encode, name_of

PAGE = Path(__file__).parents[3] / "docs" / "protocol.md"


def test_the_committed_page_is_what_the_schemas_say():
    assert PAGE.read_text() == page(), "run: python -m onelun.rpc.describe > docs/protocol.md"


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: name_of(verb.request))
def test_the_page_has_every_request_and_its_reply(verb: Verb):
    assert f"### {name_of(verb.request)} → {name_of(verb.reply)}" in PAGE.read_text()


def test_the_examples_are_read_as_what_they_were_written_from():
    for request, reply in EXAMPLES:
        assert decode_request(encode(request)) == request
        document = json.loads(encode(reply))
        assert decode_reply(document, BY_REQUEST[type(request)].reply) == reply
