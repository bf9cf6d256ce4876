"""What a study's strategy knows before the first trial, the screen included once it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

from search.strategies.base import Setting
from search.strategies.registry import strategy_class
from search.strategies.singles import screened
from search.study.jobs import SCREEN, Job
from search.study.objective import Objective
from search.study.outcomes import (
    Evaluation,
    no_screen,
    outcome_bytes,
    outcome_file,
    read_costs,
    read_outcomes,
    read_screen,
)
from search.study.screening import Screening
from search.study.subject import Subject


class StudyScreen:
    """The screen of the study in a folder: which pieces are to be made, and what they add up to.

    `setting` is what the strategy is to know; its screen is None until one is recorded.
    """

    def __init__(
        self,
        subject: Subject,
        setting: Setting,
        objective: Objective,
        write: Callable[[str, bytes], None],
    ) -> None:
        """`setting` is that before the screen; `write` writes an outcome file by its name."""
        self.setting = setting
        self._traits = strategy_class(subject.config.search.strategy)
        self._folder = folder = subject.folder
        self._study_id = study_id = subject.identity.study_id
        self._write = write
        self._screening = Screening(
            study_id,
            objective,
            lambda: screened(setting.space),
            lambda name: read_outcomes(folder, name, study_id, ""),
        )

    @property
    def is_missing(self) -> bool:
        """Whether the strategy wants a screen that is not recorded yet."""
        return self._traits.wants_screen and self.setting.screen is None

    def recall(self) -> str:
        """Take up what an earlier driver recorded; returns why the study has to stop, if it has."""
        if not self.is_missing:
            return ""
        if (whole := self._screening.recall()) is None:
            return self._add_up()
        self._take(whole)
        return ""

    def jobs(self) -> Iterator[Job]:
        """The pieces that are wanted and not made."""
        return self._screening.jobs() if self.is_missing else iter(())

    def put(self, piece: Evaluation) -> str:
        """Take a piece that is recorded; returns why the study has to stop, if it has."""
        if not self.is_missing:  # another piece failed before
            return ""
        self._screening.put(piece)
        return self._add_up()

    def go_without(self, reason: str) -> str:
        """No piece is made any more; returns why the study has to stop, if its strategy needs it.

        Recorded, so that a resume goes on without a screen too.
        """
        if not self.is_missing:
            return ""
        if self._traits.needs_screen:
            return f"{SCREEN} failed: {reason}"
        nothing = no_screen(self._study_id, reason)
        self._write(nothing.name, outcome_bytes(nothing))
        self._take(nothing)
        return ""

    def _add_up(self) -> str:
        """Record the screen if all of its pieces are made; they are not needed any more then."""
        if (whole := self._screening.whole()) is None:
            return ""
        if not whole.outcomes:
            return self.go_without(whole.composition)
        self._write(whole.name, outcome_bytes(whole))
        self._take(whole)
        for name in self._screening.names:
            with suppress(OSError):
                outcome_file(self._folder, name).unlink(missing_ok=True)
        return ""

    def _take(self, whole: Evaluation) -> None:
        self.setting = replace(self.setting, screen=read_screen(whole), costs=read_costs(whole))
