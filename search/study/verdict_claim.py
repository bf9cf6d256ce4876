"""What a verdict claims, and what follows from it: to export the winner, or what to try instead."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from search.study.objective import GAIN
from search.study.verdict import Verdict
from tasks.metrics import is_perplexity, shown
from tasks.power import detectable_text
from tasks.scoring import Scores

Kind = Literal["gain", "loss", "unclear", "nothing"]

Sides = Mapping[str, Mapping[str, Scores]]


@dataclass(frozen=True)
class Claim:
    """`gain`: test supports the winner. `loss`: it is clearly worse. `nothing`: there is no winner.

    `because`: why a rise that is clear by the paired test is no gain all the same, else empty.
    """

    kind: Kind
    because: str = ""

    @property
    def supported(self) -> bool:
        """Whether the winner is worth exporting."""
        return self.kind == "gain"


def claim_of(verdict: Verdict) -> Claim:
    """Judge test: the paired comparison, the majority baseline, and what ties have earned."""
    if verdict.trial is None or "test" not in verdict.comparisons:
        return Claim("nothing")
    direction = verdict.comparisons["test"].direction
    if direction < 0:
        return Claim("loss")
    if not direction:
        return Claim("unclear")
    because = _constant(verdict) or _tied(verdict)
    return Claim("unclear", because) if because else Claim("gain")


def _parts(verdict: Verdict) -> list[tuple[float, str, Sides]]:
    """Weight, metric and scores of every task that counts; of one task, itself."""
    if not verdict.tasks:
        return [(1.0, verdict.metric, verdict.scores)]
    return [(t.weight, t.metric, t.scores) for t in verdict.tasks.values() if t.weight > 0]


def _constant(verdict: Verdict) -> str:
    """Whether every task that rose is answered no better than by its commonest answer."""
    beaten = []
    for _, metric, scores in _parts(verdict):
        before, after = scores["baseline"]["test"], scores["winner"]["test"]
        if after.score > before.score:
            if after.majority_baseline is None or after.score > after.majority_baseline:
                return ""
            beaten.append(
                f"always giving the most common answer scores {after.majority_baseline:.4f}"
                f" and the winner {shown(metric, after.score):.4f}"
            )
    return "; ".join(beaten)


def _tied(verdict: Verdict) -> str:
    """Whether nothing rises once answers that tie earn nothing."""
    changes, weights, said = [], [], []
    for weight, metric, scores in _parts(verdict):
        before, after = scores["baseline"]["test"], scores["winner"]["test"]
        unit = 1.0
        if verdict.metric == GAIN and not is_perplexity(metric):
            unit = abs(before.score) or 1.0
        changes.append(weight * (after.untied_score - before.untied_score) / unit)
        weights.append(weight)
        said.append((before, after))
    if math.fsum(changes) / math.fsum(weights) > 0 or not any(b.tied or a.tied for b, a in said):
        return ""
    earned = ", ".join(
        f"{after.tied_score:.4f} of {after.score:.4f}" for _, after in said if after.tied
    )
    return (
        "tied answers earn it, which say nothing"
        + (f" ({earned})" if earned else "")
        + "; without them the winner is not better"
    )


def advice(verdict: Verdict, folder: Path | str, *, confirmed: bool = False) -> list[str]:
    """The last lines of a verdict: what to do now.

    `confirmed`: `search.confirm` is on already.
    """
    claim = claim_of(verdict)
    if verdict.budgets and verdict.trial is None:
        return ["There is nothing to export.", "Try instead: a larger budget, or a looser floor."]
    if verdict.budgets:
        export = f"laser-search export {folder} --out MODEL_DIR --format factored"
        return [f"Export it at this size: {export}"]
    if claim.supported:
        return [f"Export it: laser-search export {folder} --out MODEL_DIR"]
    confirm = "" if confirmed else "search.confirm, which chooses the winner on a second look; "
    retry = f"Try instead: more questions; {confirm}more trials (raise search.trials and resume)."
    power = power_notice(verdict)
    head = {
        "nothing": "There is nothing to export.",
        "loss": "Do not export it: on questions that the search never saw it is worse.",
        "unclear": "Do not export it: "
        + (claim.because or "on questions that the search never saw no gain is clear")
        + ".",
    }[claim.kind]
    return [head, *([f"{power[:1].upper()}{power[1:]}."] if power else []), retry]


def power_notice(verdict: Verdict) -> str:
    """What test could have found, of one task whose scores are hits and misses; else empty."""
    scores = verdict.scores["baseline"].get("test")
    if scores is None or scores.majority_baseline is None:
        return ""
    found = verdict.comparisons.get("test")
    return detectable_text(found.groups if found is not None else scores.n)


def looks_text(looks: Sequence[Mapping[str, int | None]]) -> str:
    """A sentence where test was scored for more than one verdict, else empty."""
    if len(looks) < 2:
        return ""
    after = ", ".join("?" if one["finished"] is None else str(one["finished"]) for one in looks)
    return (
        f"test has been used before: this is verdict {len(looks)} on it (after {after} trials). "
        "Every further look makes a lucky one likelier than its p-value says; "
        "confirm the winner on fresh questions"
    )
