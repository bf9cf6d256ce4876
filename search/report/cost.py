"""What a study cost, and what it did not have to pay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `status` and `logs` need none of it
    import pandas as pd

from search.phases import duration

PREFIX = "seconds."


@dataclass(frozen=True)
class Cost:
    """Seconds of work and of waiting.

    `worker_s`: spent in evaluations, summed over workers. `parts_s`: where. `wall_s`: from the
    first trial's start to the last one's end, interruptions included. `raced`: trials stopped
    early, and `raced_s` what the rest of their questions would have taken. `further`: sums of other
    counts on record, such as blocks.
    """

    evaluated: int
    worker_s: float
    wall_s: float
    parts_s: dict[str, float]
    raced: int
    raced_s: float
    further: dict[str, float]

    @property
    def mean_s(self) -> float:
        """Seconds of a whole evaluation."""
        return self.worker_s / self.evaluated if self.evaluated else 0.0


def find_cost(trials: pd.DataFrame, chunks: int) -> Cost:
    """Sum the cost of a frame of trials; `chunks` are the pieces a whole evaluation has."""
    import pandas as pd

    names = [name for name in trials.columns if name.startswith(PREFIX)]
    sums = {name.removeprefix(PREFIX): float(trials[name].sum()) for name in names}
    worker_s = sums.pop("total", sum(sums.values()))
    evaluated = int((trials["state"] == "complete").sum())
    mean_s = worker_s / evaluated if evaluated else 0.0
    pruned = trials[trials["state"] == "pruned"]
    span = trials["finished"].max() - trials["started"].min()
    return Cost(
        evaluated=evaluated,
        worker_s=worker_s,
        wall_s=span.total_seconds() if pd.notna(span) else 0.0,
        parts_s={name: value for name, value in sums.items() if value > 0},
        raced=len(pruned),
        raced_s=float((1 - pruned["steps"].clip(upper=chunks) / chunks).sum()) * mean_s,
        further={name: float(trials[name].sum()) for name in names_of_counts(trials)},
    )


def wall_text(wall_s: Mapping[str, float]) -> str:
    """The wall time of a study and what it went to, empty if it is not on record."""
    if not wall_s:
        return ""
    return f"wall time: {duration(sum(wall_s.values()))} ({phases_text(wall_s)})"


def phases_text(wall_s: Mapping[str, float]) -> str:
    """The wall time by phase."""
    return ", ".join(f"{phase} {duration(seconds)}" for phase, seconds in wall_s.items())


def names_of_counts(trials: pd.DataFrame) -> list[str]:
    """Columns that count work: blocks and tokens."""
    import pandas as pd

    return [
        name
        for name in trials.columns
        if name.partition(".")[0] in ("blocks", "tokens", "cost")
        and pd.api.types.is_numeric_dtype(trials[name])
    ]
