"""Every request that there is, and how each is treated."""

from __future__ import annotations

from onelun.rpc import to_compute_verbs, to_either
from onelun.rpc.schema import Request, Verb, name_of
from onelun.rpc.to_nas import verbs as to_nas_verbs

VERBS: tuple[Verb, ...] = (*to_nas_verbs.VERBS, *to_compute_verbs.VERBS, *to_either.VERBS)
BY_NAME: dict[str, Verb] = {name_of(verb.request): verb for verb in VERBS}
BY_REQUEST: dict[type[Request], Verb] = {verb.request: verb for verb in VERBS}
