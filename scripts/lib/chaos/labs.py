"""Trials in labs: one stands until something cannot be given back in it, and a process within its namespaces does them."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from fnmatch import fnmatchcase
from multiprocessing import Pipe, Queue
from multiprocessing.connection import Connection
from pathlib import Path

from scripts.lib.chaos.lab import LabCloud
from scripts.lib.chaos.trial import LIMITS, Result
from scripts.lib.chaos.working import Answer, Job, Traced, Worker, begin_work, end_work, served
from tests.recorded.backupstore import Backupstore
from tests.recorded.passing import Pass, taken
from tests.recorded.row import Action
from tests.recorded.unpassed import ENGINES
from tests.support.lab import root as roots
from tests.support.lab.apart import fork_inside
from tests.support.lab.machine import Say, machine
from tests.support.lab.place import CHECKOUT, NAS, Lab, LabError
from tests.support.lab.record import abandoned, holder
from tests.support.lab.startup import Variant, up
from tests.support.lab.teardown import down
from tests.support.oned import serving
from tests.support.sandbox.place import POOL
from tests.support.sandbox.processes import run

# The rows that are tried in a lab, where all takes longer.
ROWS = (
    *("datastore.mkfs", "datastore.clone", "datastore.rm", "tm.clone", "tm.ln", "tm.mkswap", "tm.delete"),
    *("tm.mvds", "tm.mv-disk.1-disk.1", "tm.cpds", "tm.resize", "tm.snap_create", "tm.snap_delete", "tm.snap_revert"),
)
# A guest is slow to say that it has begun, and that it is at work; and LVM, to list what is in the trash.
_LIMITS = {**LIMITS, "accept_s": 20.0, "progress_s": 3.0, "lease_s": 27.0, "probe_s": 6.0, "trash_s": 60.0}
# Nobody else listens in the lab's own network.
_ONED_PORT = 2633
# These change nothing, and are asked for at any moment: once is enough.
_LOOKS = (
    "nas.backends.lvm.tool.Lvm.report/*",
    "nas.backends.lvm.tool.Lvm.settle/*",
    "nas.backends.lvm.devices.Devices.pool_status/*",
    "nas.backends.lvm.devices.Devices._open_count/*",
    "nas.backends.lvm.devices.Devices.suspended/*",
    "nas.exporters.lio.exporter.LioExporter.exports/*",
    "compute.connectors.iscsi.disk.Disks.identity/*",
    "compute.connectors.iscsi.inquiry.ask/*",
)


def engine(point: str) -> bool:
    """Whether it is a step of an engine that only a guest has."""
    return _matches(point, ENGINES)


def _matches(point: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(point, pattern) for pattern in patterns)


def passed_in_lab(cloud: LabCloud, action: Action) -> Iterator[Pass]:
    """The steps of the action: each once, but those of the engines as often as they are taken.

    One door of theirs leads to many commands: dying after each of these is another thing.
    """
    counted: Counter[Pass] = Counter()
    for found in taken(cloud, action):
        counted[found] += 1
        if counted[found] == 1 or (engine(found[1]) and not _matches(found[1], _LOOKS)):
            yield found


class _SpentError(BaseException):
    """The lab is to be given up in the middle of a job."""


class _Standing:
    """The one lab that this process is in; in the words of Sandboxes."""

    def __init__(self, cloud: LabCloud) -> None:
        self._cloud = cloud
        self.spent = False

    def cloud(self) -> LabCloud:
        if self.spent:
            raise _SpentError
        return self._cloud

    def end(self) -> None:
        self.spent = True


class Labs:
    """Does jobs in one lab after the other."""

    def __init__(self) -> None:
        self._standing = ExitStack()
        self._there: Connection | None = None

    def do(self, job: Job) -> Answer:
        """What a job showed. A lab that was given up in its middle is followed by another, once."""
        for _ in range(2):
            try:
                if self._there is None:
                    self._there = self._begin()
                self._there.send(job)
                answer, spent = self._there.recv()
            except (EOFError, OSError, LabError) as error:
                _say(f"{job}: {error!r}")
                answer, spent = None, True
            if spent:
                self.end()
            if answer is not None:
                return answer
        return Traced(job.action, trouble="two labs in turn did not live through it")

    def end(self) -> None:
        """End the one that stands."""
        self._there = None
        self._standing.close()

    def _begin(self) -> Connection:
        with ExitStack() as starting:
            directory = Path(starting.enter_context(tempfile.TemporaryDirectory()))
            os.chmod(directory, 0o711)
            frontend: dict[str, object] = {
                "names": ["frontend", "vm"],
                "pools": [f"{NAS}/{POOL}"],
                "opennebula_version": "7.5",
                "api": f"http://127.0.0.1:{_ONED_PORT}/RPC2",
                "api_auth": str(directory / "one_auth"),
                "remotes": str(directory / "remotes"),
            }
            lab = up(None, os.getpid(), Variant(limits=_LIMITS, faults=True, frontend=frontend), _say)
            starting.callback(down, lab)
            # Waiting for it has taken our signals.
            begin_work()
            ours, theirs = Pipe()
            first = holder(lab)
            assert first is not None
            child = fork_inside(first.pid)
            if child == 0:
                ours.close()
                _inside(lab, directory, theirs)
            theirs.close()
            starting.callback(ours.close)
            starting.callback(_end, child)
            self._standing = starting.pop_all()
        return ours


def _inside(lab: Lab, directory: Path, jobs: Connection) -> None:
    """Do jobs in the namespaces of the lab, until nobody has one any more. Does not return."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    try:
        with serving(directory, port=_ONED_PORT) as (oned, auth):
            os.chmod(auth, 0o644)
            standing = _Standing(LabCloud(lab, oned, Backupstore(directory)))
            worker = Worker(standing, passed_in_lab, strict=True)
            while not standing.spent:
                try:
                    answer: Answer | None = served(worker, jobs.recv())
                except EOFError:
                    break
                except _SpentError:
                    answer = None
                _say(_told(answer))
                jobs.send((answer, standing.spent))
    except BaseException as error:  # noqa: BLE001 - whoever waits for us hears that we ended
        _say(f"the trials in lab {lab.number} broke off: {error!r}")
    finally:
        os._exit(0)


def _end(child: int) -> None:
    """It may be in the middle of a trial that nobody waits for."""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _told(answer: Answer | None) -> str:
    match answer:
        case Result(action, plan, verdict, seconds):
            return f"{action}: {plan.action} {plan.side} {plan.point} ({plan.nth}): {verdict}, {seconds:.0f} s"
        case Traced(action, steps, trouble):
            return f"{action}: {len(steps)} steps {trouble}"
    return "given up"


def _say(text: str) -> None:
    """For who wants to know more than the table."""
    if os.environ.get("CHAOS_LOGS"):
        print(f"lab: {text}", file=sys.stderr, flush=True)


def build_lab(say: Say) -> None:
    """Make in the cache what guests boot from."""
    # Guests read the checkout and write nothing there: each program that starts in one would compile all that it loads.
    run(sys.executable, "-m", "compileall", "-q", f"{CHECKOUT}/lib", timeout_s=300)
    machine("uml").build(roots.build(say), say)


def down_abandoned() -> None:
    """End labs whose process was killed."""
    for lab in abandoned():
        down(lab)


def work_in_labs(jobs: Queue[Job | None], answers: Queue[Answer | None]) -> None:
    """As working.work, in labs."""
    begin_work()
    labs = Labs()
    try:
        while (job := jobs.get()) is not None:
            answers.put(labs.do(job))
    except KeyboardInterrupt:
        pass
    finally:
        end_work(labs.end, answers)
