"""What outcomes say beyond right and wrong: ranks, lengths, and trust in confidence."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tasks.base import Outcome

BINS = 10
TOPS = (5, 10)


def further_scores(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Scores by name, each over the outcomes that have what it needs; absent where none has.

    ``top-5``, ``top-10``: share of open answers whose first token is among the likeliest; of tokens
    that tie for the last places each has its share of them.
    ``log-prob/token``: mean over examples of the right answer's log-probability per token, in nats.
    ``brier``: mean Brier score over choices or labels, 0 to 2. ``ece``: expected calibration error.
    """
    found: dict[str, float] = {}
    ranks = [(o.rank, o.rank_tied or 1) for o in outcomes if o.rank is not None]
    if ranks:
        found |= {f"top-{k}": _top(ranks, k) for k in TOPS}
    per_token = [o.log_probability / o.tokens for o in outcomes if o.tokens]
    if per_token and ranks:
        found["log-prob/token"] = math.fsum(per_token) / len(per_token)
    squares = [outcome.brier for outcome in outcomes if outcome.brier is not None]
    if squares:
        found["brier"] = math.fsum(squares) / len(squares)
    error = calibration_error(outcomes)
    if error is not None:
        found["ece"] = error
    return found


def _top(ranks: Sequence[tuple[int, int]], places: int) -> float:
    """Mean share of the first `places` that a token has which ties with others for several."""
    shares = (min(1.0, max(0, places - first) / tied) for first, tied in ranks)
    return math.fsum(shares) / len(ranks)


def calibration_error(outcomes: Sequence[Outcome]) -> float | None:
    """Expected calibration error: how far accuracy is from confidence, on average.

    Predictions are sorted into BINS of equal width by their confidence, each bin open on the left
    and closed on the right; the gaps between mean score and mean confidence are averaged with the
    bins' sizes. None where no outcome has a confidence. Guo et al. 2017.
    """
    pairs = [(o.confidence, o.score) for o in outcomes if o.confidence is not None]
    if not pairs:
        return None
    gaps: list[list[float]] = [[] for _ in range(BINS)]
    for confidence, score in pairs:
        place = min(BINS - 1, max(0, math.ceil(confidence * BINS) - 1))
        gaps[place].append(score - confidence)
    return math.fsum(abs(math.fsum(gap)) for gap in gaps) / len(pairs)
