"""One piece of work for a worker: a composition on a part of the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from search.cuts.composition import Composition, Intervention

Part = Literal["validation", "confirm", "test", "guard", "screen"]
"""What is asked. ``guard``: general text. ``screen``: a backward pass over some of validation, no
trial."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to evaluate.

    `name` is unique in a study and names the outcome file. `number` is the Optuna trial's, None for
    the baseline and for scoring on confirm and test. `baseline`: the unedited model's score by task
    on that part, where a composition's value is relative to it. `screened`: what a screen predicts,
    from the examples of `piece`, see `search.study.screening`.
    `ahead`: compositions that are asked the same after the unedited model; its pass keeps on the
    way what they can begin from.
    """

    name: str
    composition: Composition
    effect: str
    part: Part
    number: int | None = None
    baseline: Mapping[str, float] | None = None
    screened: tuple[Intervention, ...] = ()
    piece: int = 0
    ahead: tuple[Composition, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data, to be sent to another process."""
        facts = {field.name: getattr(self, field.name) for field in fields(self)}
        return facts | {
            "composition": self.composition.to_dict(),
            "baseline": None if self.baseline is None else dict(self.baseline),
            "screened": [str(cut) for cut in self.screened],
            "ahead": [composition.to_dict() for composition in self.ahead],
        }

    @staticmethod
    def from_dict(data: dict[str, Any]) -> Job:
        """Read what `to_dict` wrote."""
        screened = tuple(Intervention.parse(text) for text in data["screened"])
        composition = Composition.from_dict(data["composition"])
        ahead = tuple(map(Composition.from_dict, data["ahead"]))
        known = {"composition": composition, "screened": screened, "ahead": ahead}
        return Job(**{**data, **known})


BASELINE = "baseline-validation"
TEST_BASELINE = "baseline-test"
CONFIRM_BASELINE = "baseline-confirm"
SCREEN = "screen"


def trial_name(number: int) -> str:
    """The evaluation name of a trial on validation."""
    return f"trial-{number:05d}"


def test_name(number: int) -> str:
    """The evaluation name of a trial on test."""
    return f"trial-{number:05d}-test"


def guard_baseline(digest: str) -> str:
    """The evaluation name of the unedited model on general text with this digest."""
    return f"baseline-guard-{digest}"


def guard_name(number: int, digest: str) -> str:
    """The evaluation name of a trial on general text with this digest."""
    return f"trial-{number:05d}-guard-{digest}"


def confirm_name(number: int) -> str:
    """The evaluation name of a finalist on the confirmation part."""
    return f"trial-{number:05d}-confirm"
