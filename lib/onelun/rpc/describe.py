"""Writes docs/protocol.md: the prose beside this file, with what the schemas, the limits and the permissions say.

`python -m onelun.rpc.describe > docs/protocol.md`
"""

from __future__ import annotations

import json
import sys
from importlib import resources
from typing import Any

import msgspec

from onelun import errors
from onelun.config import Limits
from onelun.rpc.examples import CALLER, EXAMPLES
from onelun.rpc.message import BY_REQUEST, CONDITIONS, VERBS, Reply, Request, Verb, encode, name_of
from onelun.rpc.setup import grants

_ROLES = {
    "nas": "Requests to a NAS",
    "compute": "Requests to a compute node",
    "both": "Requests to either",
}


def page() -> str:
    """The whole of docs/protocol.md."""
    limits = Limits()
    prose = resources.files("onelun.rpc").joinpath("prose.md").read_text(encoding="utf-8")
    head = prose.format(
        results_h=int(limits.results_s / 3600),
        accept_s=limits.accept_s,
        preempt_s=limits.preempt_s,
        finish_s=limits.finish_s,
        at_once=limits.at_once,
        most_freeing=limits.at_once + -(-limits.at_once // 4),
        of_host=-(-3 * limits.at_once // 4),
        copy_h=limits.copy_s / 3600,
        conditions=", ".join(f"`{word}`" for word in sorted(CONDITIONS)),
        codes=_codes(),
        grants=_grants(),
        caller=CALLER,
        common=_fields(Request),
    )
    parts = [head.rstrip()]
    for role, title in _ROLES.items():
        parts.append(f"## {title}")
        parts += [_described(verb) for verb in VERBS if verb.role == role]
    types = _types()
    parts.append("## Types that these use")
    parts += [_described_type(name, types[name]) for name in sorted(types)]
    return "\n\n".join(parts) + "\n"


def _described(verb: Verb) -> str:
    reply = name_of(verb.reply)
    kind = "answered directly" if not verb.journaled else "may last as long as a copy" if verb.copies else "journaled"
    kind += ", frees" if verb.frees else ""
    own_reply = _fields(verb.reply, without=Reply)
    text = [
        f"### {name_of(verb.request)} → {reply}",
        f"{_sentences(verb.request)} ({kind})",
        f"Asked by {_callers(verb)}.",
        _fields(verb.request, without=Request),
        f"`{reply}`: {_sentences(verb.reply)}",
        own_reply,
    ]
    for request, answer in EXAMPLES:
        if BY_REQUEST[type(request)] is verb:
            text.append(f"```json\n{_json(request)}\n{_json(answer)}\n```")
    return "\n\n".join(part for part in text if part)


def _callers(verb: Verb) -> str:
    """Who may ask it, in words."""
    words = [{"frontend": "a frontend", "nas": "a NAS", "compute": "a host"}.get(kind) for kind in verb.callers]
    known = ", ".join(word for word in words if word)
    if verb.role != "compute" or "unnamed" not in verb.callers:
        return known
    fields = ", ".join(
        f"`{field.name}`" for field in msgspec.structs.fields(verb.request) if field.name in (verb.bare or ())
    )
    return f"{known}; without `user_id`" + (f" with {fields} alone" if fields else "")


def _described_type(name: str, schema: dict[str, Any]) -> str:
    words = " ".join(schema.get("description", "").split())
    if "enum" in schema:
        return f"### {name}\n\n{words} One of {', '.join(f'`{word}`' for word in schema['enum'])}."
    return f"### {name}\n\n{words}\n\n{_table(schema)}"


def _json(message: Request | Reply) -> str:
    # `v` is left out as the seed's callers do: absent, it is 1.
    return json.dumps(json.loads(encode(message)))


def _schema(message: type[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema of a message and those of the types in it."""
    _, components = msgspec.json.schema_components([message])
    return components.pop(message.__name__), components


def _types() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for verb in VERBS:
        for message in (verb.request, verb.reply):
            found |= _schema(message)[1]
    return found


def _sentences(message: type[Any]) -> str:
    return " ".join((message.__doc__ or "").split())


def _fields(message: type[Any], without: type[Any] | None = None) -> str:
    """The table of a message's own fields, or nothing."""
    common = set(_schema(without)[0]["properties"]) if without else {"action"}
    schema = _schema(message)[0]
    own = {name: kind for name, kind in schema["properties"].items() if name not in common}
    return _table({**schema, "properties": own}) if own else ""


def _table(schema: dict[str, Any]) -> str:
    rows = ["| field | type | |", "|---|---|---|"]
    for name, kind in schema["properties"].items():
        rows.append(f"| `{name}` | {_type(kind)} | {_need(name, kind, schema)} |")
    return "\n".join(rows)


def _need(name: str, kind: dict[str, Any], schema: dict[str, Any]) -> str:
    if name in schema.get("required", ()):
        return "required"
    default = kind.get("default")
    return "" if default in (None, [], "") else f"default `{json.dumps(default)}`"


def _type(kind: dict[str, Any]) -> str:
    if "anyOf" in kind:
        return " or ".join(dict.fromkeys(_type(one) for one in kind["anyOf"] if one.get("type") != "null"))
    if "$ref" in kind:
        name = kind["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in kind:
        return " or ".join(f"`{word}`" for word in kind["enum"])
    if kind.get("type") == "array":
        return f"list of {_type(kind['items'])}" if kind.get("items") else "list"
    if kind.get("contentEncoding"):
        return str(kind["contentEncoding"])
    return str(kind.get("type", "any"))


def _codes() -> str:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.OnelunError)]
    meanings = {kind.code: _sentences(kind) for kind in kinds}
    meanings[errors.OnelunError.code] = "A failure that nobody foresaw: the agent's log explains it."
    return "\n".join(f"| `{code}` | {meaning} |" for code, meaning in sorted(meanings.items()))


def _grants() -> str:
    shown = {"frontend": "frontend", "nas.n": "nas.N", "compute.n1": "compute.N"}
    rows = []
    for grant in (*grants(["frontend"], ["n"], ["n1", "n2"]),):
        if grant.user in shown:
            patterns = [_shown(pattern) for pattern in grant[1:]]
            rows.append(f"| {shown[grant.user]} | {' | '.join(patterns)} |")
    return "\n".join(rows)


def _shown(pattern: str) -> str:
    if pattern == "^$":
        return "none"
    if pattern == "^(n1|n2)$":
        return "the names of the compute agents"
    named = pattern.replace("n1", "N").replace("^n$", "^N$").replace("(n|", "(N|").replace("|", "\\|")
    return f"`{named}`"


if __name__ == "__main__":
    sys.stdout.write(page())
