"""What test does not support is exported only when the user insists; its card says so."""

from __future__ import annotations

import shutil

import pytest

from search.study.sealed_files import write_sealed_json
from search.study.verdict import FILE, Verdict
from tasks.base import Example, Outcome
from tasks.comparison import compare
from tasks.scoring import summarise

N = 40
EXAMPLES = [Example(str(n), str(n), f"Question {n} is", f" {n % 7}") for n in range(N)]


def outcomes(right: int) -> list[Outcome]:
    """The first `right` questions answered rightly, each with its own words."""
    return [
        Outcome(str(n), str(n), float(n < right), -1.0, str(n) if n < right else f"not {n}")
        for n in range(N)
    ]


def first_sentence(folder) -> str:
    """The first paragraph of a card, after its metadata and its heading."""
    body = (folder / "README.md").read_text().split("---\n", 2)[2]
    return next(text for text in body.split("\n\n") if text.strip() and "# " not in text[:3])


def judged(study, tmp_path, before: int, after: int):
    """A copy of `study` whose trial 0 answers `after` of 40 test questions, before it `before`."""
    folder = tmp_path / "study"
    shutil.copytree(study.folder, folder)
    sides = {"baseline": outcomes(before), "winner": outcomes(after)}
    scores = {
        side: {part: summarise(found, EXAMPLES) for part in ("validation", "test")}
        for side, found in sides.items()
    }
    comparisons = {
        part: compare(sides["baseline"], sides["winner"]) for part in ("validation", "test")
    }
    verdict = Verdict(0, "0.q_proj=rank:2", scores, comparisons, {}, metric="accuracy")
    write_sealed_json(folder / FILE, verdict.to_json())
    return folder


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (30, 10, "on test, which the search never saw, it is worse than the unedited model"),
        (20, 22, "on test, which the search never saw, no gain is clear"),
    ],
)
def test_what_test_does_not_support_needs_anyway(gptj, run, tmp_path, before, after, words) -> None:
    folder = judged(gptj, tmp_path, before, after)
    export = ("export", folder, "--trial", 0, "--format", "recipe", "--no-verify")
    code, _, err = run(*export, "--out", tmp_path / "refused")
    assert code == 2 and err.count("\n") == 1, err
    assert words in err and "--anyway" in err
    assert not (tmp_path / "refused").exists()

    code, _, err = run(*export, "--out", tmp_path / "insisted", "--anyway")
    assert code == 0, err
    assert words in first_sentence(tmp_path / "insisted"), "the card says so before all else"


def test_a_gain_needs_no_insisting(gptj, run, tmp_path) -> None:
    folder = judged(gptj, tmp_path, 10, 30)
    words = ("export", folder, "--trial", 0, "--format", "recipe", "--no-verify")
    code, _, err = run(*words, "--out", tmp_path / "model")
    assert code == 0, err
    assert first_sentence(tmp_path / "model").startswith("Its gain holds on test questions")
