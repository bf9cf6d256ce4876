import sys
from collections import Counter

import pytest

from tasks.base import Generate, Generated
from tasks.errors import InputError
from tasks.rouge import Rouge
from tasks.samsum import SamSum

pytest.importorskip("rouge_score")

TASK = SamSum()
ROW = {
    "id": "13862856",
    "dialogue": "Hannah: Do you have Betty's number?\r\nAmanda: Lemme check\r\nHannah: <file_gif>",
    "summary": "Hannah needs Betty's number. Amanda doesn't have it. She is to contact Larry.",
}


def _ngrams(text, n):
    words = text.lower().split()
    return Counter(tuple(words[k : k + n]) for k in range(len(words) - n + 1))


def _f(shared, said, right):
    return 2 * shared / (said + right) if shared else 0.0


def _lcs(a, b):
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            table[i + 1][j + 1] = (
                table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
            )
    return table[-1][-1]


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("ann met bob at the pub", "ann saw bob at a pub"),
        ("bob at pub met ann", "ann met bob at pub"),
        ("cat cat cat", "cat dog cat"),
        ("nothing alike", "ann met bob"),
        ("ann met bob", "ann met bob"),
    ],
)
def test_rouge_against_counts_by_hand(text, reference):
    """Words that stemming leaves alone."""
    found = Rouge().score(text, reference)
    for n in (1, 2):
        said, right = _ngrams(text, n), _ngrams(reference, n)
        expected = _f((said & right).total(), said.total(), right.total())
        assert found[f"rouge{n}"] == pytest.approx(expected)
    a, b = text.split(), reference.split()
    assert found["rougeL"] == pytest.approx(_f(_lcs(a, b), len(a), len(b)))
    assert found["rougeLsum"] == found["rougeL"]


def test_words_are_stemmed_and_sentences_are_parted():
    found = Rouge().score("He walks. She talked.", "She talks. He walked.")
    assert found["rouge1"] == 1.0
    assert found["rougeL"] == pytest.approx(0.5)
    assert found["rougeLsum"] == 1.0


def test_the_library_itself_gives_the_same():
    from rouge_score.rouge_scorer import RougeScorer

    text = "Hannah wants a number.\nAmanda has none."
    reference = "Hannah needs Betty's number.\nAmanda doesn't have it."
    own = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=True)
    expected = {kind: score.fmeasure for kind, score in own.score(reference, text).items()}
    assert Rouge().score(text, reference) == expected
    assert Rouge().score(text.replace("\n", " "), reference.replace("\n", " ")) == expected


def test_requests_for_both_heads(write):
    (example,) = TASK.load(write("samsum.json", [ROW, {**ROW, "id": "2", "dialogue": ""}]))
    assert example.id == ROW["id"]
    dialogue = ROW["dialogue"].replace("\r\n", "\n")
    assert TASK.request(example, "seq2seq") == Generate(
        f"summarize: {dialogue}", 100, ROW["summary"]
    )
    asked = TASK.request(example, "causal")
    assert asked.prompt.endswith(f"{dialogue}\n\nSummary:")
    assert (asked.answer, asked.stop) == (" " + ROW["summary"], ("\n",))


def test_csv_with_line_breaks_in_cells(write):
    quoted = ROW["dialogue"].replace('"', '""')
    path = write("samsum.csv", f'id,dialogue,summary\r\n1,"{quoted}","{ROW["summary"]}"\r\n')
    (example,) = TASK.load(path)
    assert example.prompt == ROW["dialogue"].replace("\r\n", "\n")


def test_scores_and_loss(write):
    (example,) = TASK.load(write("samsum.json", [ROW]))
    reply = Generated(" Hannah needs Betty's number.", 9, -40.0, 20)
    outcome = TASK.outcome(example, reply)
    found = Rouge().score("Hannah needs Betty's number.", ROW["summary"])
    assert outcome.score == found["rougeL"]
    assert outcome.measures == {**found, "loss": 2.0}
    assert (outcome.log_probability, outcome.tokens) == (-40.0, 20)
    assert TASK.outcome(example, Generated("", 1, -40.0, 20)).score == 0.0


def test_a_missing_package_is_named_before_anything_is_read(monkeypatch):
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    with pytest.raises(InputError, match=r"pip install 'laser-search\[rouge\]'"):
        SamSum().load("no-such-file.json")
