"""Which trial is exported."""

from __future__ import annotations

from search.study.study_record import StudyRecord
from search.study.trials import TrialRecord
from search.study.verdict import read_verdict
from search.study.verdict_claim import claim_of
from tasks.errors import InputError


def choose_trial(record: StudyRecord, number: int | None) -> TrialRecord:
    """The trial to export: by `number`, else the winner. Raises InputError if there is none."""
    if number is None:
        return _winner(record)
    if not 0 <= number < len(record.trials):
        known = f"it has 0 to {len(record.trials) - 1}" if record.trials else "it has none yet"
        raise InputError(f"trial {number} does not exist in {record.folder}; {known}")
    trial = record.trials[number]
    if not trial.complete:
        raise InputError(
            f"trial {number} is {trial.state.name}, not COMPLETE; choose a complete one"
        )
    return trial


def support(record: StudyRecord, trial: TrialRecord) -> str:
    """Why test does not support `trial` as a gain; empty where it does or never saw it."""
    verdict = read_verdict(record.result)
    if verdict is None or verdict.trial != trial.number or verdict.budgets:
        return ""  # within a budget it is smaller, and need not be better
    claim = claim_of(verdict)
    if claim.because:
        return claim.because
    return {
        "loss": "on test, which the search never saw, it is worse than the unedited model",
        "unclear": "on test, which the search never saw, no gain is clear",
    }.get(claim.kind, "")


def check_supported(record: StudyRecord, trial: TrialRecord) -> None:
    """Raises InputError where test does not support `trial`."""
    if why := support(record, trial):
        raise InputError(
            f"trial {trial.number} of {record.folder} is not worth exporting: {why}; "
            "give it more questions or trials, or export it with --anyway"
        )


def _winner(record: StudyRecord) -> TrialRecord:
    if record.summary.complete == 0:
        raise InputError(
            f"{record.folder} has no finished trial yet; "
            f"continue it with laser-search resume {record.folder}"
        )
    if record.summary.winner is None:
        if record.config.space.budget is not None:
            raise InputError(
                f"{record.folder} has no trial that keeps every floor; name one with --trial or "
                "search on"
            )
        confirmed = " and the confirmation part" if record.config.search.confirm else ""
        raise InputError(
            f"{record.folder} has no trial that beats the baseline on validation{confirmed}; "
            "choose one with --trial, or continue the search"
        )
    return record.summary.winner
