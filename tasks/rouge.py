"""ROUGE of a generated text against a reference, by Google's rouge-score."""

from __future__ import annotations

import re
from typing import Any

from tasks.errors import InputError

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


class Rouge:
    """F-measures with Porter stemming: unigrams, bigrams, longest common subsequence, its union.

    rougeLsum compares sentence by sentence; a sentence ends at a line break or after a full stop,
    question or exclamation mark. Source: Lin 2004; the package rouge-score, which the extra
    ``rouge`` installs. Raises InputError where it is missing.
    """

    def __init__(self) -> None:
        try:
            from rouge_score.rouge_scorer import RougeScorer
        except ImportError:
            raise InputError(
                "ROUGE needs the package rouge-score; install it with "
                "pip install 'laser-search[rouge]'"
            ) from None
        self._scorer: Any = RougeScorer(list(KINDS), use_stemmer=True)

    def score(self, text: str, reference: str) -> dict[str, float]:
        """F-measures from 0 to 1 by kind."""
        found = self._scorer.score(_SENTENCE.sub("\n", reference), _SENTENCE.sub("\n", text))
        return {kind: float(found[kind].fmeasure) for kind in KINDS}
