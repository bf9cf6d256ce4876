"""A guard: what raises the perplexity of general text by more than the limit cannot win."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from optuna.trial import TrialState

from search.config import parse_config
from search.cuts.composition import Composition
from search.demo.study import HERE
from search.evaluation.evaluator import ON_GENERAL_TEXT, Questions, open_evaluator
from search.evaluation.general_text import read_general_text
from search.evaluation.screen import Asking, predict_changes, predict_costs
from search.model import ModelSource
from search.plan import make_plan
from search.report.new_study import Answers, study_text
from search.sections import GuardConfig
from search.study.collateral import Collateral
from search.study.driven_study import DrivenStudy
from search.study.identity import Identity, digest_examples, digest_settings
from search.study.jobs import BASELINE, Job
from search.study.objective import Objective
from search.study.outcomes import Evaluation
from search.study.race import seeded_order
from search.study.screening import COSTED_PARTS, QUESTION_PIECES, SCREENED_EXAMPLES
from search.study.subject import Subject
from tasks.base import Example, Outcome
from tasks.errors import InputError
from tasks.guarded import GENERAL_TEXT, Guarded
from tasks.scoring import mean_score

IDENTITY = Identity("guard", "", {}, "", "", "", "")
SOURCE = ModelSource(str(HERE / "model"))


def settings(worse_by: float | None = 0.005, **search: object):
    guard = {} if worse_by is None else {"guard": {"worse_by": worse_by}}
    return parse_config(
        {
            "model": {"path": "nowhere"},
            "task": {"name": "jsonl"},
            "space": {"max_interventions": 2},
            "search": {"strategy": "random", "trials": 12, **search},
            **guard,
        },
        "test",
    )


# A study with made-up scores ---------------------------------------------------------------------


def answer(study, job: Job) -> Evaluation:
    """Cutting deep is what answers, and what ruins the texts."""
    lost = sum(1 - int(cut.rpartition(":")[2]) / 64 for cut in job.effect.split())
    known = round(8 + 4 * lost)
    outcomes = tuple(
        Outcome(f"{job.part}{n}", f"{job.part}{n}", float(n < known), -1.0, "x") for n in range(16)
    )
    nats = 3.0 + 0.01 * lost
    scores = {GENERAL_TEXT: -nats} if job.part == "validation" and study.objective.guard else {}
    return Evaluation(
        *(job.name, study.identity.study_id, str(job.composition), job.effect, job.part),
        *(mean_score(outcomes), 1.0, {}, outcomes),
        scores=scores,
    )


def work(study) -> None:
    """Report half of the questions of every trial, as an executor does, then all of them."""
    while (job := study.next_job()) is not None:
        found = answer(study, job)
        seen = {o.example_id: o.score for o in found.outcomes[::2]}
        if study.report(job, 1, sum(seen.values()) / len(seen), seen):
            study.prune(job)
        else:
            study.finish(job, found)


def test_what_costs_more_than_the_limit_never_wins_and_says_by_how_much(
    tmp_path: Path, open_study
) -> None:
    study = open_study(tmp_path / "guarded", settings())
    assert study.objective.single, "the value is the score of the one task"
    work(study)
    bound = -3.0 - math.log1p(0.005)
    for trial in study.trials():
        cost = trial.scores[GENERAL_TEXT]
        assert trial.violations == {f"{GENERAL_TEXT}.worse_by": pytest.approx(bound - cost)}
        assert trial.feasible == (cost >= bound)
    feasible = [t for t in study.trials() if t.feasible]
    assert 0 < len(feasible) < len(study.trials())
    assert study.winner().score == max(t.score for t in feasible)
    assert max(t.score for t in study.trials()) > study.winner().score
    free = open_study(tmp_path / "free", settings(None))
    work(free)
    assert not any(t.violations or t.scores for t in free.trials())
    assert free.winner().score > study.winner().score


def test_no_trial_begins_before_the_baseline_that_judges_it(tmp_path: Path, open_study) -> None:
    study = open_study(tmp_path, settings())
    first = study.next_job()
    assert (first.name, study.next_job()) == (BASELINE, None)
    study.finish(first, answer(study, first))
    assert study.next_job().number == 0


def test_a_race_is_against_the_best_that_keeps_the_limit(tmp_path: Path, open_study) -> None:
    """What is better and too costly is no incumbent, so a trial below it is not given up."""
    study = open_study(tmp_path, settings(pruner="race", chunks=2))

    def seen(job: Job, score: float) -> dict[str, float]:
        return dict.fromkeys(
            [o.example_id for o in scored(study, job, score, 0).outcomes[:12]], score
        )

    def end(job: Job, score: float, lost: float) -> None:
        study.finish(job, scored(study, job, score, lost))

    end(study.next_job(), 0.0, 0.0)
    end(study.next_job(), 1.0, 0.02)
    assert not study.trials()[0].feasible
    job = study.next_job()
    assert not study.report(job, 1, 0.5, seen(job, 0.5)), "better than all that keep the limit"
    end(job, 0.5, 0.0)
    assert study.winner().number == 1
    job = study.next_job()
    assert study.report(job, 1, 0.0, seen(job, 0.0)), "the race is on"
    study.prune(job)
    assert study.trials()[2].state == TrialState.PRUNED and not study.trials()[2].violations


def scored(study, job: Job, score: float, lost: float) -> Evaluation:
    """Every question scores the same; the text loses `lost` nats per token."""
    found = answer(study, job)
    outcomes = tuple(replace(o, score=score) for o in found.outcomes)
    return replace(found, score=score, outcomes=outcomes, scores={GENERAL_TEXT: -3.0 - lost})


def test_a_sample_without_a_number_fails_the_trial(tmp_path: Path, open_study) -> None:
    study = open_study(tmp_path, settings())
    job = study.next_job()
    study.finish(job, answer(study, job))
    job = study.next_job()
    study.finish(job, replace(answer(study, job), scores={GENERAL_TEXT: math.nan}))
    assert "score of general text nan" in study.trials()[job.number].reason


# Which texts -------------------------------------------------------------------------------------


def asked(count: int, part: str) -> list[Example]:
    return [
        Example(f"{part}{n}", f"{part}{n}", f"Person {n} of {part} plays the", "piano")
        for n in range(count)
    ]


def test_without_data_the_search_reads_prompts_of_validation_and_none_of_test() -> None:
    validation, test = asked(400, "validation"), asked(400, "test")
    config = GuardConfig(worse_by=0.01, sample_tokens=200)
    found = read_general_text(config, SOURCE, test, validation)
    known = {x.prompt for x in validation}
    assert found.sample and {x.prompt for x in found.sample} < known
    assert not {x.prompt for x in found.examples} & known
    assert {x.task for x in found.sample} == {GENERAL_TEXT}
    count = sum(len(SOURCE.tokenizer()(x.prompt)["input_ids"]) for x in found.sample)
    assert 100 < count <= 200
    turned = read_general_text(config, SOURCE, test, validation[::-1])
    assert [x.id for x in turned.sample] == [x.id for x in found.sample]
    assert read_general_text(GuardConfig(), SOURCE, test, validation).sample == ()


def test_of_a_file_the_search_reads_short_passages_and_other_texts_than_the_verdict(
    tmp_path: Path,
) -> None:
    texts = [
        " ".join(
            f"Article {n}, sentence {m}: we know that Jeremy plays the drums." for m in range(40)
        )
        for n in range(12)
    ]
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    config = GuardConfig(data=str(path), tokens=2000, worse_by=0.01, sample_tokens=500)
    found = read_general_text(config, SOURCE, [])
    assert 0 < len(found.examples) < 12
    whole = [x.prompt for x in found.examples]
    assert len(found.sample) > 3 and all(len(x.prompt) <= 512 for x in found.sample)
    for one in found.sample:
        assert not any(one.prompt in text for text in whole), "the verdict's own text"
        assert any(one.prompt in text for text in texts), "a passage is as it stands"
    few = replace_config(config, tokens=100_000)
    again = read_general_text(few, SOURCE, [])
    assert len(again.examples) == 12 and again.sample, "a short file serves for both"


def replace_config(config: GuardConfig, **change: object) -> GuardConfig:
    return config.model_copy(update=change)


def test_a_limit_that_nothing_can_be_held_to_is_refused() -> None:
    config = GuardConfig(worse_by=0.01)
    with pytest.raises(InputError, match=r"guard\.worse_by is 0\.01, but a masked head"):
        read_general_text(config, SimpleNamespace(head="masked"), asked(4, "test"), [])
    with pytest.raises(InputError, match="no prompt of validation, or none of test, has 2 tokens"):
        read_general_text(config, SOURCE, asked(4, "test"), [Example("e", "g", "a", "b")])


def test_trials_depend_on_limit_and_sample_and_on_nothing_of_an_unguarded_study() -> None:
    free, guarded = digest_settings(settings(None)), digest_settings(settings())
    assert free == digest_settings(parse_config({**dumped(None), "guard": None}, "test"))
    assert guarded not in (free, digest_settings(settings(0.01)))
    more = parse_config({**dumped(0.005), "guard": {"worse_by": 0.005, "sample_tokens": 9}}, "test")
    assert digest_settings(more) != guarded
    (one,) = asked(1, "a")
    assert digest_examples([one], []) != digest_examples([one], [], (), asked(1, "text"))
    assert digest_examples([one], []) == digest_examples([one], [], (), ())


def dumped(worse_by: float | None) -> dict[str, object]:
    return settings(worse_by).model_dump(mode="json")


def test_init_offers_it_and_a_file_that_asks_for_it_is_a_study() -> None:
    offered = study_text(Answers("gpt2"), "study.yaml")
    assert "#   worse_by: 0.01" in offered
    assert parse_config(yaml.safe_load(offered), "x").guard == GuardConfig()
    asked_for = study_text(Answers("gpt2", worse_by=0.02), "study.yaml")
    assert parse_config(yaml.safe_load(asked_for), "x").guard == GuardConfig(worse_by=0.02)


# On a model --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A plan of the demo's model with a guard, and its evaluator."""
    folder = tmp_path_factory.mktemp("guard")
    config = parse_config(
        {
            "model": {"path": str(HERE / "model")},
            "task": {"name": "jsonl", "data": str(HERE / "questions.jsonl")},
            "split": {"validation": 0.02},
            "guard": {"worse_by": 0.01, "sample_tokens": 120, "tokens": 200},
            "factors": str(folder / "factors"),
        },
        "test",
    )
    plan = make_plan(config)
    questions = Questions(Guarded(plan.task), plan.parts, 2, plan.objective)
    return plan, open_evaluator(plan.source, questions, config.factors)


def test_the_sample_is_scored_beside_validation_from_the_first_edit_on(
    guarded, count_blocks
) -> None:
    plan, evaluator = guarded
    assert plan.objective == Objective.of(plan.config, {"": plan.task.metric})
    assert plan.objective.guard is not None and plan.objective.needs_baseline
    cut = Composition.parse(["2.fc_in=0.1"])
    ran = count_blocks(evaluator.passes.prefix)
    before = evaluator.evaluate(Job("b", Composition(), "", "validation"))
    ran.clear()
    *early, last = evaluator.run(Job("t", cut, "e", "validation"))
    assert set(ran) == {2}, "blocks before the first edit run for no text"
    whole = last.evaluation
    assert set(whole.scores) == set(before.scores) == {GENERAL_TEXT}
    assert whole.scores[GENERAL_TEXT] < before.scores[GENERAL_TEXT]
    asked_here = {x.id for x in plan.split.validation}
    assert {o.example_id for o in whole.outcomes} == asked_here
    assert all(progress.chunk.keys() < asked_here for progress in early)
    assert whole.seconds["guard"] > 0
    found = plain(plan, cut)
    assert whole.scores[GENERAL_TEXT] == found, "the same to the bit as a pass of the whole model"
    assert evaluator.evaluate(Job("x", cut, "e", "test")).scores == {}


def test_a_screen_predicts_costs_on_the_sample_and_the_study_hands_them_on(
    guarded, tmp_path: Path
) -> None:
    plan, evaluator = guarded
    study = DrivenStudy.open(
        Subject(tmp_path, IDENTITY, plan.config, plan.space, plan.max_ranks, plan.objective)
    )
    baseline, *pieces = [study.next_job() for _ in range(1 + QUESTION_PIECES + COSTED_PARTS)]
    cuts = tuple(Composition.parse([f"2.fc_out={rho}"]).interventions[0] for rho in (0.9, 0.05))
    for job in reversed(pieces):
        assert study._screen.setting.screen is None
        study.finish(job, evaluator.evaluate(replace(job, screened=cuts)))
    study.finish(baseline, evaluator.evaluate(baseline))
    task = Guarded(plan.task)
    asking = Asking(evaluator.editor, evaluator._predictor, task, evaluator.passes)
    asked = sorted(plan.split.validation, key=lambda example: seeded_order(example.id))
    changes = predict_changes(asking, asked[:SCREENED_EXAMPLES], cuts, plan.objective)
    assert study._screen.setting.screen == pytest.approx(changes, rel=1e-4, abs=1e-6)
    assert study._screen.setting.costs == predict_costs(asking, plan.parts["sample"], cuts)
    mild, strong = (study._screen.setting.costs[cut] for cut in cuts)
    assert strong > max(0, mild)
    assert study.history.room == pytest.approx({f"{GENERAL_TEXT}.worse_by": math.log(1.01)})
    assert study._screen.setting.screen.keys() == set(cuts)


def test_a_piece_of_the_screen_is_the_same_whoever_makes_it(guarded) -> None:
    plan, evaluator = guarded
    evaluator.evaluate(Job("t", Composition.parse(["2.fc_in=0.1"]), "e", "validation"))
    other = open_evaluator(
        plan.source, Questions(Guarded(plan.task), plan.parts), plan.config.factors
    )
    cuts = Composition.parse(["1.fc_in=0.4", "2.fc_out=0.05"]).interventions
    for piece in (QUESTION_PIECES, 0):
        job = Job("s", Composition(), "", "screen", screened=cuts, piece=piece)
        found = [one.evaluate(job).outcomes for one in (evaluator, other, evaluator)]
        assert found[0] == found[1] == found[2]
        assert found[0][0].score


def plain(plan, cut: Composition) -> float:
    """The sample's score by an evaluator that asks nothing else, from the first block on."""
    questions = Questions(
        Guarded(plan.task), {"guard": plan.parts["sample"]}, objective=ON_GENERAL_TEXT
    )
    alone = open_evaluator(plan.source, questions, plan.config.factors)
    return alone.evaluate(Job("g", cut, "e", "guard")).score


# The verdict -------------------------------------------------------------------------------------


def of_texts(nats: float) -> Evaluation:
    outcomes = tuple(
        Outcome(f"t{n}", f"g{n}", -nats, -nats, None, tokens=4, weight=4.0, task=GENERAL_TEXT)
        for n in range(9)
    )
    return Evaluation("x", "s", "", "", "guard", 0.0, 0.0, {}, outcomes)


@pytest.mark.parametrize(("nats", "kept"), [(2.009, True), (2.02, False)])
def test_the_verdict_says_whether_the_limit_is_kept_on_its_own_text(
    nats: float, kept: bool
) -> None:
    found = Collateral.of("text.txt", of_texts(2.0), of_texts(nats), 0.01)
    assert (found.warning is None) == kept
    assert ("within the limit of +1.0%" in found.sentence()) == kept
    if not kept:
        assert "breaks the limit of +1.0% (guard.worse_by)" in found.warning
    wide = Collateral.of("text.txt", of_texts(2.0), of_texts(2.02), 0.05)
    assert wide.warning is None, "as much was allowed"
    free = Collateral.of("text.txt", of_texts(2.0), of_texts(2.02))
    assert "guard: {worse_by: 0.01}" in free.warning
