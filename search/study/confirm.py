"""The best trials, asked again on questions that no trial saw; the winner is chosen there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from optuna.trial import FrozenTrial

from search.study.jobs import CONFIRM_BASELINE, confirm_name
from search.study.outcomes import Evaluation, read_outcomes


def read_confirmed(
    folder: Path, study: str, finalists: Sequence[FrozenTrial]
) -> dict[str, Evaluation] | None:
    """The finalists on the confirmation part, by effect, that of the unedited model empty.

    None while any is missing.
    """
    names = {"": CONFIRM_BASELINE}
    names |= {trial.user_attrs["effect"]: confirm_name(trial.number) for trial in finalists}
    found: dict[str, Evaluation] = {}
    for effect, name in names.items():
        if (evaluation := read_outcomes(folder, name, study, effect)) is None:
            return None
        found[effect] = evaluation
    return found


def choose_confirmed(
    finalists: Sequence[FrozenTrial], confirmed: dict[str, Evaluation]
) -> FrozenTrial | None:
    """The best finalist by (score, log-loss) there, the earlier of equals in their own order.

    None if it does not beat the unedited model there.
    """

    def merit(effect: str) -> tuple[float, float]:
        return (confirmed[effect].score, -confirmed[effect].log_loss)

    best = max(finalists, key=lambda trial: merit(trial.user_attrs["effect"]), default=None)
    if best is None or merit(best.user_attrs["effect"]) <= merit(""):
        return None
    return best
