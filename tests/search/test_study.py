"""A study survives being killed between any two writes, and accounts exactly."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from search.study.identity import (
    Digests,
    Identity,
    digest_checkpoint,
    digest_examples,
    digest_settings,
)
from search.study.jobs import BASELINE, TEST_BASELINE
from search.study.journal import JOURNAL, mend_journal
from search.study.objective import Objective
from search.study.optuna_study import OptunaStudy
from search.study.outcomes import outcome_bytes, outcome_file, write_outcomes
from search.study.summary import summarise
from search.study.trials import TrialRecord
from search.study.winner import choose_winner
from tasks.base import Example
from tasks.errors import InputError


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


def finished(study) -> list[tuple[object, ...]]:
    return [(t.number, t.params, t.score, t.state, t.effect) for t in study.trials()]


def summary_of(study):
    return summarise(
        *(study.trials(), study.baseline, study.budget, study.objective), ended=study.ended
    )


def test_exactly_the_budget_and_every_effect_once(tmp_path: Path, open_study, drive) -> None:
    study = open_study(tmp_path)
    evaluated = drive(study)
    assert evaluated[0] == ""
    assert len(evaluated) == len(set(evaluated)) == 30 + 1
    assert study.spent == 30
    assert not any(t.state == TrialState.RUNNING for t in study.trials())
    assert outcome_file(tmp_path, TEST_BASELINE).exists()
    assert study.next_job() is None


def test_whether_it_goes_on_is_known_without_the_storage(
    tmp_path: Path, open_study, drive, monkeypatch
) -> None:
    """Tune's loop asks many times a second, also while a database is away."""
    study = open_study(tmp_path)

    def away(_: object) -> None:
        raise AssertionError("the storage was asked")

    with monkeypatch.context() as patched:
        patched.setattr(OptunaStudy, "facts", property(away))
        assert study.goes_on and not study.waits
    drive(study)
    with monkeypatch.context() as patched:
        patched.setattr(OptunaStudy, "facts", property(away))
        assert not study.goes_on and not study.waits


@pytest.mark.slow
def test_the_search_goes_uphill(tmp_path: Path, make_config, open_study, drive) -> None:
    scores = {}
    for strategy in ("tpe", "random"):
        found = []
        for seed in range(3):
            folder = tmp_path / f"{strategy}{seed}"
            config = make_config(trials=60, strategy=strategy, seed=seed)
            study = open_study(folder, config)
            drive(study)
            found.append(study.winner().score)
        scores[strategy] = sum(found)
    assert scores["tpe"] > scores["random"]


@pytest.mark.parametrize("strategy", ["tpe", "random", "greedy", "nsga-ii"])
def test_killed_at_any_write_it_ends_as_if_uninterrupted(
    tmp_path: Path, make_config, open_study, monkeypatch, strategy, drive
) -> None:
    config = make_config(trials=14, strategy=strategy)
    whole = open_study(tmp_path / "whole", config)
    drive(whole)
    expected = finished(whole)
    append = JournalFileBackend.append_logs
    folder = tmp_path / "killed"
    kills = 0
    for after in itertools.cycle([3, 9, 1, 14, 5, 2, 22, 7]):
        writes = itertools.count(1)

        def dying(self, logs, writes=writes, after=after) -> None:
            if next(writes) > after:
                if after % 2:  # half of the kills tear the line that was being written
                    append(self, logs)
                    data = (folder / JOURNAL).read_bytes()
                    (folder / JOURNAL).write_bytes(data[: -1 - after])
                raise Killed
            append(self, logs)

        monkeypatch.setattr(JournalFileBackend, "append_logs", dying)
        try:
            folder.mkdir(exist_ok=True)
            mend_journal(folder)
            study = open_study(folder, config)
            drive(study)
            break
        except Killed:
            kills += 1
            assert kills < 400
    monkeypatch.setattr(JournalFileBackend, "append_logs", append)
    assert kills >= 3
    assert finished(open_study(folder, config)) == expected


def test_a_finished_evaluation_that_was_not_told_is_not_run_again(
    tmp_path: Path, open_study, drive, evaluation
) -> None:
    study = open_study(tmp_path)
    drive(study, limit=5)
    job = study.next_job()
    write_outcomes(tmp_path, evaluation(study, job))  # the worker wrote it, then the driver died
    again = open_study(tmp_path)
    next_one = again.next_job()
    assert next_one.number > job.number
    assert again.trials()[job.number].state == TrialState.COMPLETE


def test_a_damaged_outcome_file_is_evaluated_again(tmp_path: Path, open_study, drive) -> None:
    study = open_study(tmp_path)
    drive(study, limit=3)
    job = study.next_job()
    path = outcome_file(tmp_path, job.name)
    path.write_bytes(b"PAR1 torn")
    assert open_study(tmp_path).next_job() == job


def test_what_a_worker_sends_or_leaves_is_recorded_as_what_is_evaluated_here(
    tmp_path: Path, open_study, drive, evaluation
) -> None:
    here = open_study(tmp_path / "here")
    drive(here)
    there = open_study(tmp_path / "there")
    while (job := there.next_job()) is not None:
        found = evaluation(there, job)
        if job.number is not None and job.number % 2:
            write_outcomes(tmp_path / "there", found)
            assert there.take(job, None)
        else:
            assert there.take(job, outcome_bytes(found))
        path = outcome_file(tmp_path / "there", job.name)
        assert path.read_bytes() == outcome_bytes(found)
    assert finished(there) == finished(here)


def test_what_cannot_be_read_of_a_worker_changes_nothing(
    tmp_path: Path, open_study, drive, evaluation
) -> None:
    study = open_study(tmp_path)
    drive(study, limit=3)
    job = study.next_job()
    whole = outcome_bytes(evaluation(study, job))
    assert not study.take(job, None)
    assert not study.take(job, whole[:-1])
    assert not study.take(job, outcome_bytes(replace(evaluation(study, job), study="another")))
    assert study.running() == [job]
    assert not outcome_file(tmp_path, job.name).exists()
    assert study.take(job, outcome_bytes(replace(evaluation(study, job), score=math.nan)))
    assert study.trials()[job.number].state == TrialState.FAIL


def test_what_was_in_flight_runs_again_under_its_own_number(
    tmp_path: Path, open_study, drive, evaluation
) -> None:
    study = open_study(tmp_path)
    drive(study, limit=4)
    in_flight = [study.next_job() for _ in range(3)]
    again = open_study(tmp_path)
    assert [again.next_job() for _ in range(3)] == in_flight
    for job in in_flight:
        again.finish(job, evaluation(again, job))
    drive(again)
    assert again.spent == 30


def test_failures_count_and_keep_their_reason(tmp_path: Path, open_study, drive) -> None:
    study = open_study(tmp_path)
    drive(study, limit=3)
    job = study.next_job()
    study.fail(job, "NonFiniteLogits: layer 2")
    drive(study)
    trial = study.trials()[job.number]
    assert (trial.state, trial.reason) == (
        TrialState.FAIL,
        "NonFiniteLogits: layer 2",
    )
    assert study.spent == 30


def test_a_dead_worker_costs_a_retry_then_a_failure(tmp_path: Path, open_study, drive) -> None:
    study = open_study(tmp_path)
    drive(study, limit=2)
    job = study.next_job()
    for _ in range(2):
        study.died(job, "killed")
        assert study.next_job() == job
    study = open_study(tmp_path)  # deaths are remembered
    assert study.next_job() == job
    study.died(job, "killed")
    assert study.trials()[job.number].state == TrialState.FAIL
    assert "after 3 attempts" in study.trials()[job.number].reason


def test_a_machine_on_which_nothing_works_stops_the_study(
    tmp_path: Path, open_study, drive
) -> None:
    study = open_study(tmp_path)
    drive(study, limit=1)
    for _ in range(100):
        job = study.next_job()
        if job is None:
            break
        study.died(job, "out of memory")
    assert study.stopped is not None
    assert "out of memory" in study.stopped
    assert study.running() == [], "an executor would wait for it"
    drive(again := open_study(tmp_path))
    assert again.spent == 30


def test_a_failing_baseline_stops_the_study(tmp_path: Path, open_study) -> None:
    study = open_study(tmp_path)
    job = study.next_job()
    assert job.name == BASELINE
    study.fail(job, "ValueError: no mask token")
    assert study.next_job() is None
    assert "no mask token" in study.stopped


def test_what_is_in_flight_is_not_begun_again(
    tmp_path: Path, make_config, open_study, evaluation
) -> None:
    config = make_config(trials=20, rho=[0.5], strategy="random")
    study = open_study(tmp_path, config)
    jobs = [study.next_job() for _ in range(18)]
    effects = [job.effect for job in jobs]
    assert len(set(effects)) == len(effects)
    for job in reversed(jobs):
        study.finish(job, evaluation(study, job))
    assert study.spent == 17


def test_a_small_space_is_exhausted_and_no_more(
    tmp_path: Path, make_config, open_study, drive
) -> None:
    config = make_config(trials=500, rho=[0.5])
    study = open_study(tmp_path, config)
    drive(study)
    assert study.budget == study.spent == 8 + 8 * 7 // 2
    (notice,) = summary_of(study).shortfall(500)
    assert "contains only 36 compositions" in notice
    assert summary_of(study).shortfall(36) == []


def test_a_continuous_rho_in_a_space_of_few_effects_says_that_it_ended(
    tmp_path: Path, make_config, open_study, drive, monkeypatch
) -> None:
    """Between 0.985 and 1 a rank of 64 is 63 or whole: 36 effects, which no formula counts."""
    monkeypatch.setattr("search.strategies.novelty.MAX_DRAWS", 2000)
    config = make_config(trials=100, rho={"low": 0.985, "high": 0.99})
    study = open_study(tmp_path, config)
    drive(study)
    assert study.spent <= 36 < study.budget == 100
    (notice,) = summary_of(study).shortfall(100)
    assert f"ended after {study.spent} of 100 trials" in notice
    again = open_study(tmp_path, config)
    assert not again.ended, "a study that goes on may yet find one"
    drive(again)
    assert again.ended
    drive(other := open_study(tmp_path / "other", make_config(trials=10)))
    assert summary_of(other).shortfall(10) == []


def test_pruned_trials_keep_their_scores_and_never_win(
    tmp_path: Path, make_config, open_study, evaluation
) -> None:
    config = make_config(pruner="median", chunks=3)
    study = open_study(tmp_path, config)
    pruned = 0
    while (job := study.next_job()) is not None:
        result = evaluation(study, job)
        if job.number is not None and any(study.report(job, s, result.score) for s in (1, 2)):
            study.prune(job)
            pruned += 1
        else:
            study.finish(job, result)
    states = [t.state for t in study.trials()]
    assert pruned > 0
    assert states.count(TrialState.PRUNED) == pruned
    assert states.count(TrialState.COMPLETE) == 30 - pruned
    for trial in study.trials():
        if trial.state == TrialState.PRUNED:
            assert trial.steps
    assert study.winner().state == TrialState.COMPLETE


def test_ties_go_to_the_lower_log_loss_then_to_fewer_cuts(tmp_path: Path) -> None:
    def trial(number: int, log_loss: float, effect: str) -> TrialRecord:
        found = optuna.trial.create_trial(value=0.5)
        found.number = number
        found.user_attrs = {"effect": effect, "log_loss": log_loss}
        return TrialRecord.of(found)

    a = trial(0, 0.3, "0.fc_in=keep-top:1")
    b = trial(1, 0.2, "0.fc_in=keep-top:1 1.fc_in=keep-top:1")
    c = trial(2, 0.2, "1.fc_in=keep-top:1")
    assert choose_winner([a, b, c], None, Objective(())).number == 2
    assert choose_winner([a, b], None, Objective(())).number == 1


def test_a_score_that_is_no_number_fails_the_trial(
    tmp_path: Path, open_study, drive, evaluation
) -> None:
    study = open_study(tmp_path)
    drive(study, limit=3)
    job = study.next_job()
    study.finish(job, replace(evaluation(study, job), score=math.nan))
    assert study.trials()[job.number].state == TrialState.FAIL
    drive(open_study(tmp_path))


def test_what_a_study_is_of_may_not_change() -> None:
    world = Digests("w", "c", "e", "s")
    identity = Identity.new(world)
    identity.check(world)
    for field, word in [
        ("weights", "searched matrices"),
        ("checkpoint", "files of the model"),
        ("examples", "questions"),
        ("settings", "study.yaml"),
    ]:
        with pytest.raises(InputError, match=word):
            identity.check(replace(world, **{field: "other"}))


def test_settings_that_decide_a_trial_are_digested(make_config) -> None:
    config = make_config()
    assert digest_settings(make_config(trials=99)) == digest_settings(config)
    assert digest_settings(make_config(rho=[0.3])) != digest_settings(config)
    assert digest_settings(make_config(seed=1)) != digest_settings(config)


def test_every_part_of_a_question_is_digested() -> None:
    example = Example("1", "g", "p", "a", columns={"c": 1})
    digest = digest_examples([example], [])
    assert digest == digest_examples([replace(example)], [])
    for change in ({"text_pair": "t"}, {"group": "h"}, {"columns": {"c": 2}}, {"answer": "b"}):
        assert digest_examples([replace(example, **change)], []) != digest
    assert digest_examples([], [example]) != digest


def test_any_byte_of_the_checkpoint_is_digested(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "tokenizer.json").write_text("{}")
    digest = digest_checkpoint(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{ }")
    assert digest_checkpoint(tmp_path) != digest


def test_a_trial_that_was_abandoned_is_in_flight_and_runs_on_resume(
    tmp_path: Path, open_study, drive
) -> None:
    """No worker can be built: nothing failed that could be blamed on a composition."""
    whole = open_study(tmp_path / "whole")
    drive(whole)
    study = open_study(tmp_path / "s")
    drive(study, limit=5)
    job, other = study.next_job(), study.next_job()
    study.abandon(job, "no worker has the file")
    assert study.stopped == "no worker has the file"
    assert study.next_job() is None
    assert study.running() == [other]
    assert study.trials()[job.number].state == TrialState.RUNNING
    study.abandon(other, "another reason")
    again = open_study(tmp_path / "s")
    assert again.stopped is None
    assert drive(again)[:2] == [job.effect, other.effect]
    assert finished(again) == finished(whole)
