"""What launch and resume show of a study that runs: its phase, and on a terminal a live table."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from search.phases import SILENT, PhaseReporter, Phases
from search.report.live import details, find_workers, findings
from search.study.jobs import Job, Part
from search.study.summary import Summary

LIVE_S = 0.5
PLAIN_S = 5.0
"""Seconds between two summaries, which cost the more the more trials there are."""

LOOK_S = 1.0
NAMES: Mapping[Part, str] = {
    "test": "test",
    "guard": "general text",
    "confirm": "confirmation of the finalists",
    "validation": "trials",
    "screen": "screen",
}
LOADING = "loading the model"
BASELINE = "baseline"


class StudyView:
    """Tells a reporter of phases what a study's jobs in flight and trials say."""

    def __init__(
        self,
        phases: Phases,
        folder: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        loaded: bool = False,
    ) -> None:
        """Workers are known by their logs in the study's `folder`.

        `loaded`: the model is loaded before any job is asked.
        """
        self.phases = phases
        self.questions: Mapping[str, int] = {}
        """Questions by part, from which the time that test takes is reckoned."""
        self._folder = folder
        self._clock = clock
        self._loaded = loaded
        self._stage = ""
        self._asked: set[str] = set()
        self._looked_at = self._told_at = -float("inf")

    def note(self, text: str) -> None:
        """Print one line."""
        self.phases.note(text)

    def look(self, jobs: Sequence[Job], summarise: Callable[[], Summary]) -> None:
        """Look which jobs are in flight now; cheap enough for every step of the driver."""
        now = self._clock()
        if self.phases is SILENT or now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        stage = self._stage_of(jobs)
        due = stage == NAMES["validation"] and now - self._told_at >= self._interval_s
        if due or (stage and stage != self._stage):
            self._tell(stage, jobs, summarise())

    def changed(self, jobs: Sequence[Job], summarise: Callable[[], Summary]) -> None:
        """A job has ended, so some worker has loaded the model; `jobs` are still in flight."""
        self._loaded = True
        if self.phases is not SILENT and self._clock() - self._told_at >= self._interval_s:
            self._tell(self._stage_of(jobs) or self._stage, jobs, summarise())

    @property
    def _interval_s(self) -> float:
        return LIVE_S if self._is_live else PLAIN_S

    @property
    def _is_live(self) -> bool:
        return isinstance(self.phases, PhaseReporter) and self.phases.is_live

    def _stage_of(self, jobs: Sequence[Job]) -> str:
        """What these jobs are part of; empty if there are none."""
        if jobs and not self._has_loaded():
            return LOADING
        asked = [job.part for job in jobs]
        for part in ("test", "guard", "confirm"):
            if part in asked:
                return NAMES[part]
        if any(job.number is not None for job in jobs):
            return NAMES["validation"]
        if "screen" in asked:
            return NAMES["screen"]
        return BASELINE if jobs else ""

    def _has_loaded(self) -> bool:
        """Whether a worker has begun a job, as far as the logs are to be seen from here."""
        if not self._loaded and self._folder is not None:
            self._loaded = any(worker.event != "setup" for worker in find_workers(self._folder))
        return self._loaded

    def _tell(self, stage: str, jobs: Sequence[Job], summary: Summary) -> None:
        self._stage, self._told_at = stage, self._clock()
        if stage == NAMES["validation"]:
            self.phases.enter(stage, summary.asked)
            self.phases.advance(summary.finished, left_s=summary.left_s, detail=findings(summary))
        elif stage == NAMES["test"]:
            self._tell_test(stage, jobs, summary)
        elif stage:
            self.phases.enter(stage)
        if isinstance(self.phases, PhaseReporter) and self._is_live and self._loaded:
            self.phases.below = details(summary, self._folder)

    def _tell_test(self, stage: str, jobs: Sequence[Job], summary: Summary) -> None:
        """Test is asked of the unedited model and of the winner, if there is one."""
        names = {job.name for job in jobs if job.part == "test"}
        self._asked |= names
        total = 1 if summary.winner is None else 2
        done = len(self._asked - names)
        self.phases.enter(stage, total)
        each_s = self._seconds_of_test(summary)
        left_s = None if each_s is None else each_s * (total - done) / max(1, len(names))
        self.phases.advance(done, left_s=left_s)

    def _seconds_of_test(self, summary: Summary) -> float | None:
        """What one model takes for test, by what the unedited one took for validation."""
        asked, known = self.questions.get("test"), self.questions.get("validation")
        if summary.baseline is None or not asked or not known:
            return None
        seconds = summary.baseline.seconds.get("total")
        return None if seconds is None else seconds * asked / known
