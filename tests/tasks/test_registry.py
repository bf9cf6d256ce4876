import subprocess
import sys

import pytest

from tasks.base import Task
from tasks.errors import InputError
from tasks.registry import TASKS, check_head, describe, get_task


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_keeps_the_contract(name):
    task: Task = get_task(name)
    assert task.name == name
    assert task.heads <= {"causal", "masked", "classifier", "seq2seq"}
    for word in ("licence", "mask" if "masked" in task.heads else "head"):
        assert word in type(task).__doc__.lower()
    assert 10 < len(describe(task)) < 80


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(InputError, match="'counterfacts' does not exist; did you mean 'counterfa"):
        get_task("counterfacts")


@pytest.mark.parametrize(
    ("name", "head", "fits"),
    [
        ("sst2", "masked", False),
        ("sst2", "classifier", True),
        ("sst2", "causal", True),
        ("sst2", "seq2seq", True),
        ("counterfact", "classifier", False),
        ("counterfact", "masked", True),
        ("jsonl", "classifier", True),
        ("jsonl", "seq2seq", True),
        ("perplexity", "causal", True),
        ("perplexity", "masked", False),
        ("perplexity:c4", "seq2seq", False),
        ("samsum", "seq2seq", True),
        ("samsum", "masked", False),
        ("hotpotqa", "masked", True),
        ("hotpotqa", "classifier", False),
        ("counterfact", "seq2seq", False),
        ("counterfact:generated", "masked", False),
    ],
)
def test_pairs_that_make_no_sense_are_refused_by_name(name, head, fits):
    if fits:
        check_head(get_task(name), head)
        return
    with pytest.raises(InputError, match=f"'{name}' cannot be answered by a {head} head"):
        check_head(get_task(name), head)


def test_tasks_need_no_model_library():
    code = (
        "import sys, tasks.registry, tasks.scoring; "
        "print([m for m in ('torch', 'transformers', 'datasets', 'ray', 'optuna', 'search') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
