"""A finished study with the compositions that a benchmark wants, made in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
from optuna.trial import create_trial

from search.config import parse_config, write_config
from search.cuts.composition import Composition
from search.evaluation.evaluator import Questions, open_evaluator
from search.plan import make_plan
from search.study.identity import Digests, Identity, digest_checkpoint, digest_weights
from search.study.jobs import BASELINE, TEST_BASELINE, Job, test_name, trial_name
from search.study.optuna_study import METRICS
from search.study.outcomes import write_outcomes
from search.study.storages import open_storage
from search.study.study_record import CONFIG, StudyRecord


def evaluate_all(
    folder: Path, settings: dict[str, Any], compositions: list[str], test: bool = False
) -> StudyRecord:
    """Evaluate `compositions` as trials 0, 1, ... of a new study in `folder`, on validation.

    With `test`, baseline and trials are scored on test too. `settings` is study.yaml.
    """
    config = parse_config(settings, "benchmark")
    plan = make_plan(config)
    parts = {"validation": plan.split.validation, "test": plan.split.test}
    evaluator = open_evaluator(plan.source, Questions(plan.task, parts), config.factors)
    keys = {str(ref): key for ref, key in evaluator.editor.keys(plan.space.matrices).items()}
    identity = Identity.new(
        Digests(digest_weights(keys), digest_checkpoint(plan.source.folder), "", "")
    )
    evaluator._study_id = identity.study_id
    folder.mkdir(parents=True)
    identity.write(folder)
    write_config(config, folder / CONFIG)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        study_name=identity.study_id, storage=open_storage(folder, None), direction="maximize"
    )
    study.set_user_attr(METRICS, plan.objective.metrics)

    def score(name: str, composition: Composition, effect: str, part: str) -> Any:
        found = evaluator.evaluate(Job(name, composition, effect, part))  # type: ignore[arg-type]
        write_outcomes(folder, found)
        return found

    score(BASELINE, Composition(), "", "validation")
    if test:
        score(TEST_BASELINE, Composition(), "", "test")
    for number, text in enumerate(compositions):
        composition = Composition.parse(text.split())
        effect = composition.effect(plan.max_ranks)
        found = score(trial_name(number), composition, effect, "validation")
        if test:
            score(test_name(number), composition, effect, "test")
        facts = {"composition": str(composition), "effect": effect, "log_loss": found.log_loss}
        study.add_trial(create_trial(value=found.score, user_attrs=facts))
    return StudyRecord.read(folder)
