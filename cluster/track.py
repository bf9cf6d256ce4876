"""Finished trials for TensorBoard, MLflow or Weights & Biases, by Tune's and Optuna's own code.

It reads the study's storage, as `laser-search watch` does, so that a tracker that is slow or down
costs the study nothing.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.trial import FrozenTrial

from search.durable import write_json
from search.report.frames import setting_of
from search.report.watch import follow
from search.study.storages import open_storage
from search.study.study_record import StudyRecord
from search.study.trials import TrialRecord
from tasks.errors import InputError
from tasks.secrets import hide_secrets

Service = Literal["tensorboard", "mlflow", "wandb"]
Tracker = Callable[[optuna.Study, FrozenTrial], None]
"""Takes a finished trial, as the callbacks of `optuna.Study.optimize` do."""

SENT = "tracked.json"
"""Which trials went where; a second run sends the rest."""


def track(
    folder: Path,
    service: Service,
    where: str | None,
    *,
    once: bool = False,
    interval_s: float = 5.0,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Send every finished trial of a study, until the study is over.

    `where`: a folder for TensorBoard, a tracking URI for MLflow, a project for W&B. Returns how
    many were sent. Raises InputError if the service's package is missing.
    """
    records = follow(folder)
    record = next(records)
    place = where or _default(folder, service)
    count = 0
    with _opened(record, service, place) as tracker:
        while True:
            count += _send(record, f"{service} {hide_secrets(place, place)}", tracker)
            if once or record.is_over:
                return count
            sleep(interval_s)
            record = next(records)


def _send(record: StudyRecord, name: str, tracker: Tracker) -> int:
    sent = _sent(record.folder)
    known = set(sent.get(name, []))
    fresh = [
        trial for trial in record.trials if trial.state.is_finished() and trial.number not in known
    ]
    if not fresh:
        return 0
    storage = open_storage(record.folder, record.config.storage)
    study = optuna.load_study(study_name=record.identity.study_id, storage=storage)
    try:
        for trial in fresh:
            tracker(study, trial.frozen)
            known.add(trial.number)
    finally:
        write_json(record.folder / SENT, {**sent, name: sorted(known)})
    return len(fresh)


@contextmanager
def _opened(record: StudyRecord, service: Service, where: str) -> Iterator[Tracker]:
    if service == "tensorboard":
        with _tensorboard(Path(where)) as tracker:
            yield tracker
        return
    try:
        from optuna_integration import MLflowCallback, WeightsAndBiasesCallback

        with warnings.catch_warnings():
            # Gone in version 6, which our extras do not admit; nothing a user could act on.
            warnings.filterwarnings("ignore", ".*Callback has been deprecated", FutureWarning)
            if service == "mlflow":
                tracker = MLflowCallback(tracking_uri=where, metric_name="score")
            else:
                # One run for the study: trials are its steps.
                names = {"project": where, "name": record.folder.name}
                tracker = WeightsAndBiasesCallback(metric_name="score", wandb_kwargs=names)
    except ImportError as error:
        raise InputError(
            f"{service} needs packages that are not installed ({error}); "
            f"install laser-search[{service}]"
        ) from None
    if service == "mlflow":
        yield tracker
        return
    import wandb

    try:
        yield tracker
    finally:
        wandb.finish()
        wandb.teardown()  # waits for the service that writes the run's file


class _Run:
    """What Tune's TensorBoard callback asks of a trial; ours has a run of its own each."""

    def __init__(self, folder: Path, parameters: dict[str, Any]) -> None:
        self.local_path = str(folder)
        self.config = self.evaluated_params = parameters
        self.trial_id = folder.name

    def init_local_path(self) -> None:
        Path(self.local_path).mkdir(parents=True, exist_ok=True)


@contextmanager
def _tensorboard(folder: Path) -> Iterator[Tracker]:
    """A run per trial with its hyperparameters, and one of the study with the best so far."""
    from ray.tune.logger import TBXLoggerCallback

    writer = TBXLoggerCallback()
    whole = _Run(folder / "study", {})
    best = float("-inf")
    whole.init_local_path()
    writer.log_trial_start(whole)

    def send(_: optuna.Study, frozen: FrozenTrial) -> None:
        nonlocal best
        trial = TrialRecord.of(frozen)
        if not trial.complete or (score := trial.score) is None:
            return
        parameters = {
            "composition": trial.text,
            "interventions": len(trial.cuts),
            **{str(cut.matrix): setting_of(cut) for cut in trial.cuts},
        }
        run = _Run(folder / f"trial-{trial.number:05d}", parameters)
        run.init_local_path()
        result = {"score": score, "log_loss": trial.log_loss or 0.0}
        writer.log_trial_start(run)
        writer.log_trial_result(1, run, {**result, "training_iteration": 1})
        writer.log_trial_end(run)
        best = max(best, score)
        course = {**result, "best": best, "training_iteration": trial.number}
        writer.log_trial_result(trial.number, whole, course)

    try:
        yield send
    finally:
        writer.log_trial_end(whole)


def _default(folder: Path, service: Service) -> str:
    """In the study folder; for W&B the name of a project."""
    if service == "wandb":
        return "laser-search"
    if service == "mlflow":
        return f"sqlite:///{folder.resolve() / 'mlflow.db'}"
    return str(folder / "tensorboard")


def _sent(folder: Path) -> dict[str, list[int]]:
    try:
        found: dict[str, list[int]] = json.loads((folder / SENT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found
