"""The caller in docs/protocol.md, run as it stands against an agent."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import sys
from pathlib import Path

from onelun import command
from onelun.rpc.job import Job
from onelun.rpc.message import DelZvol, UnmapZvol, ZvolDeleted, ZvolUnmapped

from .conftest import Agents, Nas

PAGE = Path(__file__).parents[3] / "docs" / "protocol.md"


class Obliging(Nas):
    async def on_unmap(self, request: UnmapZvol, job: Job) -> ZvolUnmapped:
        return ZvolUnmapped()

    async def on_delete(self, request: DelZvol, job: Job) -> ZvolDeleted:
        return ZvolDeleted()

    @property
    def handlers(self):
        return {**super().handlers, UnmapZvol: self.on_unmap}


async def test_the_documented_caller_maps_lists_unmaps_and_deletes(
    agents: Agents, urls: dict[str, str], tmp_path: Path
):
    await agents.agent(nas := Obliging())
    [program] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    script = tmp_path / "caller.py"
    await asyncio.to_thread(script.write_text, program)

    environment = {"ONELUN_AMQP_URL": urls["frontend"], "PATH": os.environ["PATH"]}
    result = await command.run(sys.executable, str(script), timeout_s=120, env=environment)

    replies = [ast.literal_eval(line) for line in result.stdout.splitlines()]
    assert [reply["action"] for reply in replies] == ["zvol_mapped", "zvol_list", "zvol_unmapped", "zvol_deleted"]
    assert {reply["status"] for reply in replies} == {"success"}
    assert nas.done == ["vm-1-vol"]
    assert len(program.splitlines()) <= 32
