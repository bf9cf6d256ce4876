"""A study whose strategy wants a screen makes one first, keeps it, and resumes without another."""

import shutil

import pytest

from search.config import read_config, write_config
from search.cuts.composition import Composition
from search.demo.study import demo_config
from search.evaluation.evaluator import Questions, open_evaluator
from search.loop import run_study
from search.plan import make_plan
from search.strategies.singles import screened
from search.study.driven_study import DrivenStudy
from search.study.identity import Identity
from search.study.outcomes import read_outcomes
from search.study.screening import QUESTION_PIECES
from search.study.subject import Subject


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("screened")
    config = demo_config(folder, 8)
    search = config.search.model_copy(update={"strategy": "screened"})
    write_config(config.model_copy(update={"search": search}), folder / "study.yaml")
    return make_plan(read_config(folder / "study.yaml"))


def opened(plan, folder):
    folder.mkdir(exist_ok=True)
    identity = Identity("screened", "", {}, "", "", "", "")
    own = (plan.config, plan.space, plan.max_ranks, plan.objective)
    return DrivenStudy.open(Subject(folder, identity, *own))


def evaluator_of(plan):
    parts = {"validation": plan.split.validation[:120], "test": plan.split.test[:20]}
    questions = Questions(plan.task, parts, objective=plan.objective, study_id="screened")
    return open_evaluator(plan.source, questions, plan.config.factors)


@pytest.mark.slow
def test_a_screen_comes_first_and_is_kept(planned, tmp_path):
    study = opened(planned, tmp_path / "s")
    first = [study.next_job() for _ in range(2 + QUESTION_PIECES)]
    pieces = ["screen"] * QUESTION_PIECES
    assert [job and job.part for job in first] == ["validation", *pieces, None]
    evaluator = evaluator_of(planned)
    study = opened(planned, tmp_path / "s")
    run_study(study, evaluator)
    kept = read_outcomes(tmp_path / "s", "screen", "screened", "")
    assert {o.example_id for o in kept.outcomes} == {
        str(Composition((cut,))) for cut in screened(planned.space)
    }
    most = max(outcome.score for outcome in kept.outcomes)
    best = {o.example_id for o in kept.outcomes if o.score == most}  # two rho may be one rank
    assert study.trials()[0].text in best
    assert study.winner() is not None
    trials = [trial.effect for trial in study.trials()]

    cut = tmp_path / "cut"
    shutil.copytree(tmp_path / "s" / "outcomes", cut / "outcomes")
    again = opened(planned, cut)
    assert all(job.part != "screen" for job in iter(again.next_job, None))
    assert [trial.effect for trial in again.trials()] == trials
