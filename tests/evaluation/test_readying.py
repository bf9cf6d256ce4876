"""A worker that waits records what trials begin from; those of a node do it together."""

from dataclasses import replace

import pytest

from search.config import parse_config
from search.cuts.composition import Composition
from search.demo.study import HERE
from search.evaluation.evaluator import Hosting, Questions, open_evaluator
from search.plan import make_plan
from search.reuse.activations import GIB, Room, SharedScratch
from search.study.jobs import Job
from tasks.guarded import Guarded

CUT = Job("t", Composition.parse(["2.fc_in=0.1"]), "e", "validation")
CHUNKS = 3


@pytest.fixture
def opened(tmp_path):
    """Opens evaluators of the demo's model with the same questions, in a room that is given."""
    model, data = str(HERE / "model"), str(HERE / "questions.jsonl")
    config = parse_config(
        {
            "model": {"path": model},
            "task": {"name": "jsonl", "data": data},
            "split": {"validation": 0.02},
            "guard": {"worse_by": 0.01, "sample_tokens": 120, "tokens": 200},
            "factors": str(tmp_path / "factors"),
        },
        "test",
    )
    plan = make_plan(config)

    def make(room):
        questions = Questions(Guarded(plan.task), plan.parts, CHUNKS, plan.objective)
        return open_evaluator(plan.source, questions, config.factors, Hosting(room=room))

    return make


def test_a_trial_after_it_begins_at_its_first_edit(opened, count_blocks):
    evaluator = opened(Room(GIB))
    assert list(evaluator.get_ready()) == [*range(CHUNKS, -1, -1)], "the sample is one more"
    ran = count_blocks(evaluator.passes.prefix)
    ready = evaluator.evaluate(CUT)
    assert set(ran) == {2}, "nothing is left to record"
    ran.clear()
    assert not ran and list(evaluator.get_ready())
    assert not ran, "nothing is recorded twice"
    evaluator.close()
    other = opened(Room(GIB))
    plain = other.evaluate(CUT)
    assert (plain.outcomes, plain.scores) == (ready.outcomes, ready.scores)
    assert other.passes.prefix.boundaries == evaluator.passes.prefix.boundaries


def test_processes_of_a_node_take_from_each_other_what_they_recorded(
    opened, tmp_path, count_blocks
):
    first, second = (
        opened(Room(0, 0, GIB, SharedScratch("readying", str(tmp_path)))) for _ in range(2)
    )
    for _ in first.get_ready():
        pass
    own = second.get_ready()
    next(own)  # which says what the files of a batch are
    ran = count_blocks(second.passes.prefix)
    for _ in own:
        pass
    assert not ran
    found = [one.evaluate(CUT) for one in (second, first)]
    assert set(ran) == {2}
    assert found[0].outcomes == found[1].outcomes
    for one in (first, second):
        one.close()


def test_a_winner_begins_where_another_worker_left_off_on_test(opened, tmp_path, count_blocks):
    first, second = (
        opened(Room(0, 0, GIB, SharedScratch("finale", str(tmp_path)))) for _ in range(2)
    )
    ahead = (CUT.composition,)
    first.evaluate(Job("a", Composition(), "", "test", ahead=ahead))
    second.evaluate(Job("b", Composition(), "", "guard", ahead=ahead))
    ran = count_blocks(second.passes.prefix)
    winner = replace(CUT, part="test")
    found = second.evaluate(winner)
    assert set(ran) == {2}
    assert found.outcomes == first.evaluate(winner).outcomes
    for one in (first, second):
        one.close()
