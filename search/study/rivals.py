"""What a trial of a race has to beat."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from search.budget import Budget
from search.cuts.composition import Composition
from search.study.jobs import trial_name
from search.study.objective import Objective
from search.study.outcomes import Evaluation
from search.study.race import Incumbent
from search.study.trials import TrialRecord
from search.study.winner import best_by_share, choose_winner


class Rivals:
    """The best complete evaluation so far; within a budget the best trial of the same share."""

    def __init__(
        self,
        objective: Objective,
        sizes: Budget | None,
        trials: Callable[[], Sequence[TrialRecord]],
        baseline: Callable[[], Evaluation | None],
        read: Callable[[str, str], Evaluation | None],
    ) -> None:
        """`read` finds an evaluation by its name and effect. `sizes`: of the budget, if any."""
        self.objective = objective
        self._sizes = sizes
        self._trials = trials
        self._baseline = baseline
        self._read = read
        self._winner: TrialRecord | None = None
        self._incumbent: Incumbent | None = None
        self._by_share: dict[float, Incumbent] | None = None
        self._unedited: Incumbent | None = None

    def heard(self, trial: TrialRecord) -> None:
        """A trial has ended. Only one that may be the best is a reason to look at all of them."""
        if not trial.complete:
            return
        self._by_share = None
        beats = choose_winner([trial], self._baseline(), self.objective) is not None
        if beats and (self._winner is None or trial.merit > self._winner.merit):
            self._incumbent = None

    def of(self, composition: Composition) -> Incumbent | None:
        """What a trial of `composition` has to beat, if there is anything."""
        if self._sizes is None:
            return self._best()
        if self._by_share is None:
            bests = best_by_share(
                self._trials(), self._sizes.kept, by_log_loss=self.objective.by_log_loss
            )
            known = {
                share: self._read(trial_name(best.number), best.effect)
                for share, best in bests.items()
            }
            self._by_share = {
                share: Incumbent.of(found.outcomes, self.objective.paired)
                for share, found in known.items()
                if found is not None
            }
        own = self._sizes.read(composition)
        return None if own is None else self._by_share.get(own.kept)

    def _best(self) -> Incumbent | None:
        """The best complete evaluation so far, the baseline included; None before there is any."""
        known = baseline = self._baseline()
        if known is None:
            return None
        if self._incumbent is None:
            winner = choose_winner(self._trials(), baseline, self.objective)
            self._winner = winner
            if winner is not None:
                known = self._read(trial_name(winner.number), winner.effect) or known
            self._incumbent = Incumbent.of(known.outcomes, self.objective.paired)
        return self._incumbent

    def soft_so_far(self, scores: Mapping[str, float]) -> float | None:
        """The soft score of a trial that a race stopped (see `TrialRecord`), if it has one.

        `scores`: what the race compared of the questions that it was asked, by id.
        """
        baseline = self._baseline()
        if baseline is None or not scores or self.objective.by_log_loss:
            return None  # within a budget a race goes by the log-loss
        if (before := self.objective.soft_score(baseline)) is None:
            return None
        if self._unedited is None:
            self._unedited = Incumbent.of(baseline.outcomes, self.objective.paired)
        return before + self._unedited.gain(scores)
