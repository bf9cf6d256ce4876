"""Where the wall time of a study's driver goes: one phase after the other, over all its runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Literal, get_args

from search.study.jobs import Part

Phase = Literal["start", "factors", "screen", "trials", "test"]
"""`start`: until the first job, without the factors. `trials`: the baseline too. `test`: what is
asked on questions that no trial saw, a confirmation part included."""

PHASES: tuple[Phase, ...] = get_args(Phase)


class WallTime:
    """A clock that counts seconds to the phase that was entered last, `start` at first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin now; `clock` in seconds."""
        self._clock = clock
        self._phase: Phase = "start"
        self._since = clock()
        self._seconds: dict[Phase, float] = {}

    def enter(self, phase: Phase) -> None:
        """From now on seconds count to `phase`."""
        now = self._clock()
        self._seconds[self._phase] = self._seconds.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = phase, now

    def work_on(self, part: Part) -> None:
        """A job on this part of the data begins."""
        if part == "screen":
            self.enter("screen")
        else:
            self.enter("trials" if part == "validation" else "test")

    def add(self, earlier: Mapping[str, float]) -> None:
        """Count what earlier runs took."""
        for phase in PHASES:
            if phase in earlier:
                self._seconds[phase] = self._seconds.get(phase, 0.0) + float(earlier[phase])

    def seconds(self) -> dict[str, float]:
        """Seconds of each phase that was entered, in the order of PHASES."""
        self.enter(self._phase)
        return {phase: self._seconds[phase] for phase in PHASES if self._seconds.get(phase)}
