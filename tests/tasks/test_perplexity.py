import math
import re

import pytest

from tasks.base import TokenNll, TokenNlls
from tasks.errors import InputError
from tasks.perplexity import CORPORA, Perplexity
from tasks.scoring import summarise

TASK = Perplexity()
WIKI = [
    "",
    " = Robert Boulter = ",
    "",
    " Robert Boulter is an English film actor . \n",
    " = = Career = = ",
    " He had a role in 2000 . ",
    "",
    " = Homarus gammarus = ",
    " Homarus gammarus is a lobster . ",
]


def _texts(path):
    return [example.prompt for example in TASK.load(path)]


@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_wikitext_is_read_by_articles(write, kind):
    """As a file of lines, and as the rows of the hub's data set, whose blank lines are rows."""
    lines = [line.rstrip("\n") for line in WIKI]
    data = "\n".join(lines) + "\n" if kind == "txt" else [{"text": line} for line in WIKI]
    first, second = _texts(write(f"wiki.{kind}", data))
    assert first.startswith("= Robert Boulter =")
    assert first.endswith("He had a role in 2000 .")
    assert "= = Career = =" in first
    assert second == "= Homarus gammarus = \n Homarus gammarus is a lobster ."


def test_a_text_file_is_cut_into_passages_at_line_ends(write):
    lines = [f"line {n} " + "x" * 300 for n in range(20)]
    path = write("plain.txt", "\n".join(lines))
    found = _texts(path)
    assert len(found) == 3
    assert all(len(text) >= 2000 for text in found[:-1])
    assert "\n".join(found).split("\n") == lines
    examples = TASK.load(path)
    assert len({example.group for example in examples}) == 3


def test_sentences_of_the_penn_treebank_make_passages(write):
    rows = [{"sentence": f" no it was n't black monday number {n} "} for n in range(200)]
    found = _texts(write("ptb.jsonl", rows))
    assert 1 < len(found) < 10
    assert " ".join(found) == " ".join(row["sentence"].strip() for row in rows)


@pytest.mark.parametrize("field", ["text", "question"])
def test_documents_and_questions_are_rows(write, field):
    rows = [
        {field: "Janet has 3 ducks.\nHow many eggs?", "answer": "#### 18", "url": "x"},
        {field: "A robe takes 2 bolts.", "answer": "#### 3", "url": "y"},
    ]
    assert _texts(write("rows.jsonl", rows)) == [row[field] for row in rows]


def test_the_text_is_asked_for_its_loss(write):
    (example, _) = TASK.load(write("a.jsonl", [{"text": "one"}, {"text": "two"}]))
    assert TASK.request(example, "causal") == TokenNll("one", 2048)


def test_scores_add_up_to_the_perplexity_of_all_tokens(write):
    examples = TASK.load(write("a.jsonl", [{"text": "one"}, {"text": "two"}]))
    replies = [TokenNlls(12.0, 4), TokenNlls(50.0, 10)]
    found = [TASK.outcome(e, r) for e, r in zip(examples, replies, strict=True)]
    scores = summarise(found, examples)
    assert math.exp(-scores.score) == pytest.approx(math.exp(62 / 14))
    assert scores.log_loss == pytest.approx(62 / 14)
    assert (scores.top_prediction, scores.majority_baseline) == (None, None)
    assert TASK.outcome(examples[0], TokenNlls(8.0, 4)).score > found[0].score


def test_a_file_without_text_is_refused(write):
    with pytest.raises(InputError, match=r"has the fields txet; expected one of text.*'text'"):
        TASK.load(write("a.jsonl", [{"txet": "one"}]))
    with pytest.raises(InputError, match=r"needs data: give your file.*perplexity:wikitext2"):
        TASK.load()
    with pytest.raises(InputError, match="line 2: field 'text' is None"):
        TASK.load(write("b.jsonl", [{"text": "one"}, {"text": None}]))


@pytest.mark.parametrize("name", CORPORA)
def test_corpora_are_tasks_of_their_own(name):
    task = Perplexity(name)
    assert task.name == f"perplexity:{name}"
    assert task.heads == {"causal"}
    revision = CORPORA[name].revision
    if name == "ptb":  # a branch that the Hub itself converts, which has no stable commit
        assert revision == "refs/convert/parquet"
    else:
        assert re.fullmatch("[0-9a-f]{40}", revision), "a corpus is pinned to a commit"
