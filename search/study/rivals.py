"""What a trial of a race has to beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
        self._incumbent: Incumbent | None = None
        self._by_share: dict[float, Incumbent] | None = None

    def forget(self) -> None:
        """A trial is complete, so another may be the best."""
        self._incumbent = self._by_share = None

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
            if (winner := choose_winner(self._trials(), baseline)) is not None:
                known = self._read(trial_name(winner.number), winner.effect) or known
            self._incumbent = Incumbent.of(known.outcomes)
        return self._incumbent
