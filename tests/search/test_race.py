"""Racing: what it stops, and how often it is wrong."""

import random

import pytest

from search.config import parse_config
from search.plan import _with_pruner
from search.study.race import Incumbent, Race, seeded_order
from tasks.base import Outcome
from tasks.errors import InputError


def looks(differences, count):
    total = len(differences)
    return [differences[: total * i // count] for i in range(1, count)]


def is_stopped(race, differences):
    return any(race.is_lost(seen, len(differences)) for seen in looks(differences, race.looks))


@pytest.mark.parametrize("share", [0.05, 0.3])
@pytest.mark.parametrize("lead", [1, 4])
def test_a_trial_that_would_win_is_stopped_no_oftener_than_the_error(share, lead):
    # Discordant pairs that leave the trial `lead` answers ahead, in a random order.
    total, random_ = 400, random.Random(0)
    discordant = int(share * total)
    wins = (discordant + lead) // 2
    pairs = [1.0] * wins + [-1.0] * (wins - lead) + [0.0] * (total - 2 * wins + lead)
    race = Race(8, 0.05)
    stopped = 0
    for _ in range(2000):
        random_.shuffle(pairs)
        stopped += is_stopped(race, pairs)
    assert stopped / 2000 <= 0.05


def test_a_trial_far_behind_is_stopped_early_and_one_far_ahead_never():
    behind = [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 1.0, 0.0] * 50
    race = Race(8)
    stops = [len(seen) for seen in looks(behind, 8) if race.is_lost(seen, len(behind))]
    assert stops[0] <= 250
    assert not is_stopped(race, [-d for d in behind])


def test_no_evidence_stops_nothing():
    race = Race(8)
    assert not race.is_lost([], 100)
    assert not race.is_lost([0.0] * 50, 100)
    assert not race.is_lost([-1.0], 100)
    assert not race.is_lost([-1.0] * 100, 100), "whole already"


def test_pairs_are_weighted_by_the_example():
    outcomes = [Outcome("a", "a", -2.0, -2.0, None, weight=3), Outcome("b", "b", -1.0, -1.0, None)]
    incumbent = Incumbent.of(outcomes)
    assert incumbent.differences({"a": -1.0, "b": -3.0}) == [1.5, -1.0]


def test_the_order_does_not_depend_on_the_file():
    ids = [str(n) for n in range(50)]
    shuffled = sorted(ids, key=seeded_order)
    assert shuffled == sorted(reversed(ids), key=seeded_order)
    assert shuffled != ids


def test_a_study_stops_what_has_lost_and_never_its_winner(make_config, open_study, tmp_path):
    study = open_study(
        tmp_path / "s", make_config(pruner="race", chunks=4, trials=6, rho=[0.1, 0.5])
    )
    total = 200
    baseline = study.next_job()
    study.finish(baseline, evaluated(study, baseline, [1.0] * 100 + [0.0] * 100))
    states = []
    while (job := study.next_job()) is not None and job.part == "validation":
        scores = [0.0] * 200 if job.number % 2 else [1.0] * 120 + [0.0] * 80
        order = sorted(range(total), key=lambda n: seeded_order(str(n)))
        for step in (1, 2, 3):
            chunk = {str(n): scores[n] for n in order[(step - 1) * 50 : step * 50]}
            if study.report(job, step, sum(chunk.values()) / 50, chunk):
                study.prune(job)
                states.append(("pruned", job.number % 2, step))
                break
        else:
            study.finish(job, evaluated(study, job, scores))
            states.append(("finished", job.number % 2, 4))
    assert {state[:2] for state in states} == {("pruned", 1), ("finished", 0)}
    assert {step for kind, _, step in states if kind == "pruned"} == {1}
    pruned = [t for t in study.trials() if t.state.name == "PRUNED"]
    assert all(t.steps == {1: pytest.approx(0.0)} for t in pruned)
    assert study.winner().state.name == "COMPLETE"


def evaluated(study, job, scores):
    from search.study.outcomes import Evaluation

    outcomes = tuple(
        Outcome(str(n), str(n), score, -1.0 + score, "x") for n, score in enumerate(scores)
    )
    return Evaluation(
        job.name, study.identity.study_id, str(job.composition), job.effect, job.part,
        sum(scores) / len(scores), 0.5, {"total": 0.0}, outcomes,
    )  # fmt: skip


@pytest.mark.parametrize(("questions", "chunks"), [(20, 1), (127, 1), (384, 6), (65_757, 8)])
def test_auto_races_where_there_are_questions_enough(questions: int, chunks: int) -> None:
    found = _with_pruner(parse_config(asked(), "x"), questions).search
    assert (found.pruner, found.chunks) == (("race", chunks) if chunks > 1 else ("none", 1))


@pytest.mark.parametrize(
    ("given", "pruner", "chunks"),
    [
        ({"search": {"pruner": "none"}}, "none", 1),
        ({"search": {"chunks": 3}}, "race", 3),
        ({"search": {"pruner": "median", "chunks": 3}}, "median", 3),
        ({"search": {"strategy": "tpe"}}, "none", 1),
        ({"search": {"strategy": "random", "chunks": 3}}, "none", 3),
        ({"search": {"pareto": True}}, "none", 1),
        ({"space": {"budget": {"kept": 0.5}}}, "none", 1),
        ({"task": None, "tasks": [{"name": "jsonl"}]}, "none", 1),
    ],
)
def test_who_says_otherwise_is_heard(given, pruner: str, chunks: int) -> None:
    found = _with_pruner(parse_config(asked() | given, "x"), 5000).search
    assert (found.pruner, found.chunks) == (pruner, chunks)
    again = parse_config(parse_config(asked(), "x").model_dump() | {"search": found}, "x")
    assert _with_pruner(again, 64).search == found, "a study that goes on stays as it began"


def asked() -> dict[str, object]:
    return {"model": {"path": "x"}, "task": {"name": "jsonl"}}


def test_the_baseline_says_what_it_scored_after_each_chunk(make_config, open_study, tmp_path):
    """So that a strategy can tell what a stopped trial had won."""
    study = open_study(tmp_path / "s", make_config(pruner="race", chunks=4))
    baseline = study.next_job()
    scores = [float(n % 3 == 0) for n in range(200)]
    study.finish(baseline, evaluated(study, baseline, scores))
    order = sorted(range(200), key=lambda n: seeded_order(str(n)))
    expected = [(n, sum(scores[i] for i in order[: 50 * n]) / (50 * n)) for n in range(1, 5)]
    assert list(study.history.baseline.steps) == expected
    again = open_study(tmp_path / "s", make_config(pruner="race", chunks=4))
    assert again.history.baseline == study.history.baseline


def test_a_race_of_several_tasks_is_refused():
    data = {
        "model": {"path": "x"},
        "tasks": [{"name": "jsonl"}, {"name": "fever"}],
        "search": {"pruner": "race", "chunks": 4},
    }
    with pytest.raises(InputError, match="several tasks"):
        parse_config(data, "study.yaml")
