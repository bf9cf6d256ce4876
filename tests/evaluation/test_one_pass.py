"""The winner is scored on test from a boundary that the baseline's pass kept, to the same bits."""

from __future__ import annotations

import json

import pytest

from search.cuts.composition import Composition
from search.demo.study import HERE
from search.evaluation.evaluator import Hosting, Questions, open_evaluator
from search.model import ModelSource
from search.reuse.activations import Room, SharedScratch
from search.study.jobs import Job
from tasks.registry import get_task

WINNER = Composition.parse(["2.fc_in=0.1"])
BOTH = Composition.parse(["1.fc_in=0.4", "2.fc_in=0.1"])


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    task = get_task("jsonl")
    examples = task.load(str(HERE / "questions.jsonl"))[:80]
    factors = tmp_path_factory.mktemp("factors")

    def open_one(room: Room | None = None):
        parts = {"validation": examples[:30], "test": examples[30:]}
        hosting = Hosting(tokens_per_batch=120, room=room)
        questions = Questions(task, parts)
        return open_evaluator(ModelSource(str(HERE / "model")), questions, factors, hosting)

    return open_one


@pytest.fixture(scope="module")
def plain(make):
    """Baseline and winner on test, each by passes of the whole model."""
    evaluator = make(Room(0))
    return [evaluator.evaluate(job).outcomes for job in (before(()), after())]


def before(ahead: tuple[Composition, ...] = (WINNER,)) -> Job:
    return Job("baseline-test", Composition(), "", "test", ahead=ahead)


def after(composition: Composition = WINNER) -> Job:
    return Job("trial-test", composition, "e", "test")


def test_the_winner_costs_the_blocks_from_its_first_cut_on(make, plain, count_blocks) -> None:
    evaluator = make()
    batches = len(evaluator._prepare("test")[0][1].batches)
    ran = count_blocks(evaluator.passes.prefix)
    assert evaluator.evaluate(before()).outcomes == plain[0]
    assert batches > 2
    # Each batch once, and once more from the boundary for the one that proves it.
    assert [ran.count(place) for place in (0, 1, 2)] == [batches, batches, batches + 1]
    ran.clear()
    assert evaluator.evaluate(after()).outcomes == plain[1]
    assert ran == [2] * batches


def test_after_a_search_the_activations_of_validation_make_room(make, plain, count_blocks) -> None:
    evaluator = make()
    evaluator.evaluate(Job("t", WINNER, "e", "validation"))
    held = evaluator.passes.prefix.activations.held["device"]
    asked_before = set(evaluator.passes.prefix._records)
    assert held and asked_before
    assert evaluator.evaluate(before()).outcomes == plain[0]
    assert not asked_before & set(evaluator.passes.prefix._records)
    ran = count_blocks(evaluator.passes.prefix)
    assert evaluator.evaluate(after()).outcomes == plain[1]
    assert set(ran) == {2}
    whole = evaluator.evaluate(Job("t", WINNER, "e", "validation")).outcomes
    assert whole == make(Room(0)).evaluate(Job("t", WINNER, "e", "validation")).outcomes


def test_what_has_no_room_runs_whole(make, plain, count_blocks) -> None:
    evaluator = make()
    evaluator.evaluate(before())
    one = evaluator.passes.prefix.activations.held["device"] // 2
    small = make(Room(one))
    ran = count_blocks(small.passes.prefix)
    assert small.evaluate(before()).outcomes == plain[0]
    assert 0 < small.passes.prefix.activations.held["device"] <= one
    ran.clear()
    assert small.evaluate(after()).outcomes == plain[1]
    assert 0 < ran.count(0) < ran.count(2), "some batches from the boundary, the others whole"
    without = make(Room(0))
    assert without.evaluate(before()).outcomes == plain[0]
    assert not without.passes.prefix._records


def test_files_keep_to_their_room_too(make, plain, tmp_path) -> None:
    scratch = SharedScratch("study", str(tmp_path))
    evaluator = make(Room(0, 0, 60_000, scratch))
    assert evaluator.evaluate(before()).outcomes == plain[0]
    held = evaluator.passes.prefix.activations.held["file"]
    assert 0 < held <= 60_000
    assert evaluator.evaluate(after()).outcomes == plain[1]
    evaluator.close()


def test_several_finalists_begin_at_their_own_boundaries(make, plain, count_blocks) -> None:
    evaluator = make()
    evaluator.evaluate(before((WINNER, BOTH)))
    ran = count_blocks(evaluator.passes.prefix)
    found = evaluator.evaluate(after(BOTH)).outcomes
    assert set(ran) == {1, 2}
    assert found == make(Room(0)).evaluate(after(BOTH)).outcomes
    ran.clear()
    assert evaluator.evaluate(after()).outcomes == plain[1]
    assert set(ran) == {2}


def test_a_job_is_sent_with_what_is_ahead() -> None:
    for job in (before((WINNER, BOTH)), before(())):
        assert Job.from_dict(json.loads(json.dumps(job.to_dict()))) == job
