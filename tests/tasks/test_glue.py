"""Each part of GLUE in the schema of its own files, and as rows of the hub."""

import math

import pytest

from tasks.base import Choose, Chosen, Classified, Classify
from tasks.errors import InputError
from tasks.glue import PARTS, Glue

FILES = {
    "cola": "gj04\t1\t\tThe cat sat.\ngj04\t0\t*\tCat the sat.\n",
    "mrpc": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tA rose.\tIt rose.\n",
    "qqp": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\tHow?\tWhy?\t0\n",
    "qnli": "index\tquestion\tsentence\tlabel\n0\tWho?\tAnn did.\tentailment\n",
    "rte": "index\tsentence1\tsentence2\tlabel\n0\tIt rains.\tIt is wet.\tnot_entailment\n",
    "mnli": "index\tpromptID\tsentence1\tsentence2\tlabel1\tgold_label\n"
    "0\t1\tIt rains.\tIt is dry.\tneutral\tcontradiction\n",
    "wnli": "index\tsentence1\tsentence2\tlabel\n0\tAnn saw Bo, she ran.\tAnn ran.\t1\n",
}
FIRST = {
    "cola": ("The cat sat.", None, "acceptable"),
    "mrpc": ("A rose.", "It rose.", "equivalent"),
    "qqp": ("How?", "Why?", "not_duplicate"),
    "qnli": ("Who?", "Ann did.", "entailment"),
    "rte": ("It rains.", "It is wet.", "not_entailment"),
    "mnli": ("It rains.", "It is dry.", "contradiction"),
    "wnli": ("Ann saw Bo, she ran.", "Ann ran.", "entailment"),
}


@pytest.mark.parametrize("part", sorted(PARTS))
def test_its_own_files_and_the_hubs_rows_are_the_same_examples(write, part):
    task = Glue(part)
    example = task.load(write("dev.tsv", FILES[part]))[0]
    assert (example.prompt, example.text_pair, example.answer) == FIRST[part]
    hub = dict(zip(PARTS[part].fields, (example.prompt, example.text_pair), strict=False))
    (same,) = task.load(write("dev.jsonl", [{**hub, "label": example.label, "idx": 0}]))
    assert same.id == example.id


@pytest.mark.parametrize("part", sorted(PARTS))
def test_requests_of_both_heads(write, part):
    task = Glue(part)
    example = task.load(write("dev.tsv", FILES[part]))[0]
    assert task.request(example, "classifier") == Classify(example.prompt, example.text_pair)
    request = task.request(example, "causal")
    assert isinstance(request, Choose)
    assert example.prompt in request.prompt
    assert (example.text_pair or "") in request.prompt
    assert request.prompt.endswith("Answer:")
    assert len(request.choices) == len(PARTS[part].labels)
    assert all(choice in (" yes", " no", " maybe") for choice in request.choices)


def test_labels_of_a_model_are_matched_by_name_then_by_place(write):
    task = Glue("rte")
    example = task.load(write("dev.tsv", FILES["rte"]))[0]
    values = (math.log(0.9), math.log(0.1))
    by_name = task.outcome(example, Classified(values, ("not_entailment", "entailment")))
    by_place = task.outcome(example, Classified(values, ("LABEL_0", "LABEL_1")))
    assert (by_name.score, by_name.prediction) == (1.0, "not_entailment")
    assert (by_place.score, by_place.prediction) == (0.0, "entailment")
    assert by_name.brier == pytest.approx(0.02)


def test_a_causal_head_answers_by_the_words(write):
    task = Glue("mnli")
    example = task.load(write("dev.tsv", FILES["mnli"]))[0]
    outcome = task.outcome(example, Chosen((-3.0, -2.0, -1.0), (1, 1, 1)))
    assert (outcome.score, outcome.prediction) == (1.0, "contradiction")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"sentence1": "a", "sentence2": "b", "label": -1}, ["'-1'", "not public"]),
        ({"sentence1": "a", "sentence2": "b", "label": "entailmen"}, ["did you mean 'entailment'"]),
        ({"sentence1": "a", "label": 0}, ["'sentence2' is missing"]),
    ],
)
def test_bad_rows(write, row, words):
    with pytest.raises(InputError) as error:
        Glue("rte").load(write("b.jsonl", [row]))
    assert all(word in str(error.value) for word in ["b.jsonl line 1", *words]), str(error.value)
