"""Many actions at once, each with its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from scripts.lib.load.report import Report, spread
from scripts.lib.oned import Outcome

Action = tuple[str, Callable[[], Outcome]]


@dataclass
class Crowd:
    """Runs actions `at_once`, and keeps how each ended."""

    at_once: int
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    names: Counter[str] = field(default_factory=Counter)

    def run(self, actions: Sequence[Action]) -> list[Outcome]:
        """Start all, and return when all have ended."""
        with ThreadPoolExecutor(self.at_once) as threads:
            outcomes = list(threads.map(lambda action: action[1](), actions))
        for (name, _), outcome in zip(actions, outcomes, strict=True):
            self.names[name] += 1
            self.seconds.append(outcome.seconds)
            if outcome.status:
                self.failures.append(f"{name}: {outcome.stderr.strip()[-300:]}")
        return outcomes

    def tell(self, report: Report, what: str) -> None:
        """How they ended, as a row; each kind of failure as a line."""
        for sentence, number in Counter(self.failures).most_common(10):
            report.say(f"{number} times: {sentence}")
        figure = f"{len(self.failures)} of {len(self.seconds)} failed; {spread(self.seconds)}"
        report.row(what, figure, "none failed", met=not self.failures)
