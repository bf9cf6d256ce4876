"""How an open answer is found in generated text: exactly, contained, or by shared words."""

from __future__ import annotations

import re
import string
from collections import Counter

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case, without punctuation, articles and repeated spaces, as SQuAD and HotpotQA do.

    Source: the evaluation scripts of Rajpurkar et al. 2016 and Yang et al. 2018.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def is_exact(text: str, answer: str) -> bool:
    """Whether `text` is `answer` after `normalise`."""
    return normalise(text) == normalise(answer)


def contains(text: str, answer: str) -> bool:
    """Whether `answer` stands in `text` as whole words, whatever case and spacing.

    Whole words: "no" does not stand in "know". An empty answer stands nowhere.
    """
    return _pattern(answer).search(_fold(text)) is not None


def is_decided(text: str, answer: str) -> bool:
    """Whether `answer` stands in `text` and will, however the text goes on.

    At the very end of the text it might still become another word: "Paris" in "Parisian". The sign
    for a character that is not yet whole may become any.
    """
    return (
        _pattern(answer, "(?=.)").search(_fold(text.rstrip("\N{REPLACEMENT CHARACTER}")))
        is not None
    )


def f1(text: str, answer: str) -> float:
    """Harmonic mean of precision and recall of the words of `text` against those of `answer`.

    Words as `normalise` leaves them, counted with repetition. Where both have none, 1; where one
    has none, 0.
    """
    said, right = Counter(normalise(text).split()), Counter(normalise(answer).split())
    if not said or not right:
        return float(said == right)
    shared = (said & right).total()
    return 2 * shared / (said.total() + right.total())


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())


def _pattern(answer: str, after: str = "") -> re.Pattern[str]:
    folded = _fold(answer)
    if not folded:
        return re.compile(r"(?!)")
    start = r"(?<!\w)" if re.match(r"\w", folded) else ""
    end = r"(?!\w)" if re.search(r"\w\Z", folded) else ""
    return re.compile(start + re.escape(folded) + end + after)
