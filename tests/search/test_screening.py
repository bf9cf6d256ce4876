"""A study's screen: made in pieces by anyone, added up in one order, and made once."""

from __future__ import annotations

import random

import pytest

from search.cuts.composition import Composition
from search.study.jobs import BASELINE, SCREEN
from search.study.objective import Goal, Objective
from search.study.outcomes import Evaluation, outcome_file, read_outcomes, read_screen
from search.study.screening import (
    COSTED_PARTS,
    QUESTION_PIECES,
    SCREENED_EXAMPLES,
    Slopes,
    is_text,
    mean_changes,
    mean_costs,
    own_share,
)


def made(study, job) -> Evaluation:
    """A piece whose slopes are those of the piece and the cut."""
    draw = random.Random(job.piece)
    slopes = Slopes("", 1.0 + job.piece / 3, {cut: draw.gauss(0, 1) for cut in job.screened})
    name, study_id = job.name, study.identity.study_id
    return Evaluation(name, study_id, "", "", "screen", 0.0, 0.0, {}, slopes.outcomes())


@pytest.fixture
def config(make_config):
    return make_config(trials=3, strategy="auto", pruner="none")


@pytest.fixture
def begun(open_study, config, tmp_path):
    """A study in a folder of that name, its baseline and pieces all handed out."""

    def begin(name: str, **changes):
        own = config.model_copy(
            update={"search": config.search.model_copy(update=changes)} if changes else {}
        )
        study = open_study(tmp_path / name, own)
        return study, list(iter(study.next_job, None))

    return begin


def pieces(jobs):
    return [job for job in jobs if job.part == "screen"]


def the_screen(study) -> bytes:
    return outcome_file(study.folder, SCREEN).read_bytes()


def test_the_sum_is_the_same_whoever_makes_which_piece_and_when(begun) -> None:
    found = []
    for name in ("in turn", "backwards", "shuffled"):
        study, jobs = begun(name)
        assert [job.name for job in jobs][:2] == [BASELINE, "screen-00"]
        own = pieces(jobs)
        assert len(own) == QUESTION_PIECES, "a study without a limit reads no general text"
        order = {"in turn": own, "backwards": own[::-1]}.get(name) or random.Random(1).sample(
            own, 4
        )
        for job in order:
            assert study.waits
            study.finish(job, made(study, job))
        found.append(the_screen(study))
        assert not list((study.folder / "outcomes").glob("screen-*")), "the pieces go"
        assert study.next_job().number == 0
    assert found[0] == found[1] == found[2]


def test_a_piece_that_was_made_is_not_made_again(begun, open_study, config, tmp_path) -> None:
    study, jobs = begun("whole")
    for job in pieces(jobs):
        study.finish(job, made(study, job))
    killed, jobs = begun("killed")
    first, *_, last = pieces(jobs)
    for job in (last, first):
        killed.finish(job, made(killed, job))
    again = open_study(tmp_path / "killed", config)
    left = pieces(iter(again.next_job, None))
    assert {job.name for job in left} == {job.name for job in pieces(jobs)} - {
        first.name,
        last.name,
    }
    outcome_file(again.folder, left[0].name).write_bytes(b"torn")  # by a worker that was killed
    for job in left:
        again.finish(job, made(again, job))
    assert the_screen(again) == the_screen(study)


def test_a_kill_before_the_sum_was_recorded_makes_no_piece_again(
    begun, open_study, config, tmp_path, monkeypatch
) -> None:
    study, jobs = begun("s")
    *most, last = pieces(jobs)
    for job in most:
        study.finish(job, made(study, job))
    with monkeypatch.context() as killed:
        killed.setattr(study._screen, "_add_up", lambda: "")
        study.finish(last, made(study, last))
    assert not outcome_file(study.folder, SCREEN).exists()
    again = open_study(tmp_path / "s", config)
    assert outcome_file(study.folder, SCREEN).exists()
    assert not pieces(iter(again.next_job, None))


def test_a_screen_of_an_earlier_version_is_read_and_left(begun, open_study, config, tmp_path):
    study, jobs = begun("s")
    for job in pieces(jobs):
        study.finish(job, made(study, job))
    before = the_screen(study)  # which is what an earlier version wrote
    again = open_study(tmp_path / "s", config)
    assert not pieces(iter(again.next_job, None))
    assert the_screen(again) == before
    kept = read_outcomes(again.folder, SCREEN, again.identity.study_id, "")
    assert again._screen.setting.screen == read_screen(kept)


def test_a_piece_whose_worker_died_is_made_by_another(begun) -> None:
    study, jobs = begun("s")
    own = pieces(jobs)
    study.died(own[1], "its node went away")
    assert study.next_job() == own[1]
    for job in own:
        study.finish(job, made(study, job))
    assert study.history.in_flight == []
    assert outcome_file(study.folder, SCREEN).exists()


def test_without_one_piece_the_search_goes_on_without_a_screen(begun) -> None:
    study, jobs = begun("s")
    first, second, third, late = pieces(jobs)
    study.died(third, "its node went away")
    study.fail(first, "no gradient")
    assert study._screen.setting.screen == {} and not study.stopped
    assert study.next_job().number == 0, "the third is not made"
    written = the_screen(study)
    study.finish(late, made(study, late))
    study.fail(second, "no gradient either")
    assert the_screen(study) == written
    assert study._screen.setting.screen == {}


def test_a_strategy_that_needs_a_screen_stops_without(begun, open_study, config, tmp_path) -> None:
    study, jobs = begun("s", strategy="screened")
    study.fail(pieces(jobs)[0], "no gradient")
    assert study.stopped == "screen failed: no gradient"
    assert not outcome_file(study.folder, SCREEN).exists()


@pytest.mark.parametrize("strategy", ["auto", "screened"])
def test_where_no_answer_has_a_log_probability_nothing_is_predicted(begun, strategy) -> None:
    study, jobs = begun("s", strategy=strategy)
    for job in pieces(jobs):
        empty = Slopes("", 1.0, dict.fromkeys(job.screened, 0.0)).outcomes()
        own = (job.name, study.identity.study_id, "", "", "screen", 0.0, 0.0, {}, empty)
        study.finish(job, Evaluation(*own))
    if strategy == "auto":
        assert study._screen.setting.screen == {} and not study.stopped
    else:
        assert "use a strategy that does not screen" in study.stopped


def test_every_example_is_in_one_piece() -> None:
    questions, texts = list(range(250)), list(range(1000, 1021))
    found = [own_share(n, questions, texts) for n in range(QUESTION_PIECES + COSTED_PARTS)]
    asked = [x for n, own in enumerate(found) if not is_text(n) for x in own]
    assert sorted(asked) == questions[:SCREENED_EXAMPLES]
    assert sorted(x for n, own in enumerate(found) if is_text(n) for x in own) == texts
    assert max(map(len, found[:QUESTION_PIECES])) == SCREENED_EXAMPLES // QUESTION_PIECES
    assert [list(own_share(n, [7], [])) for n in (0, 1, QUESTION_PIECES)] == [[7], [], []]


CUT, OTHER = Composition.parse(["0.fc_in=0.1", "1.fc_in=0.1"]).interventions


def test_means_weigh_examples_within_a_task_and_tasks_by_the_objective() -> None:
    objective = Objective((Goal("a", "accuracy", 3.0), Goal("b", "accuracy", 1.0)))
    found = [
        Slopes("a", 1.0, {CUT: 0.5, OTHER: 0.0}),
        Slopes("a", 3.0, {CUT: 0.1, OTHER: 0.0}),
        Slopes("b", 9.0, {CUT: -1.0, OTHER: 4.0}),
    ]
    assert mean_changes(found, objective) == pytest.approx(
        {CUT: (3 * 0.2 - 1.0) / 4, OTHER: 1.0}, rel=1e-12
    )
    assert mean_costs(found[:2]) == pytest.approx(
        {CUT: (0.5 + 0.3 + (0.5**2 + 0.3**2) / 2) / 4, OTHER: 0.0}, rel=1e-12
    )
    assert mean_costs([]) == {}
