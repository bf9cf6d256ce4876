"""Workers that sleep in place of a model's passes, and the made-up landscape that they answer from.

What a sleeper sends is what `cluster.worker` sends: a screen of every candidate, chunks of a race
with each question's score, and where there is a limit on general text its log-likelihood. Outcomes
of all questions it leaves in the study's folder, or sends them where it does not share that.
"""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import ray
from ray import tune

from search.cuts.composition import Composition
from search.cuts.refs import GROUPS, MatrixRef
from search.study.outcomes import Evaluation, outcome_bytes, write_outcome_bytes
from search.study.race import seeded_order
from search.study.screening import is_text
from tasks.base import Outcome
from tasks.guarded import GENERAL_TEXT

UNEDITED = 0.4
"""The unedited model's score."""

PERPLEXITY_NATS = 2.0
"""The unedited model's log-loss on general text."""


TOKENS = 100
"""Of each piece of general text."""


def made_up(count: int) -> tuple[MatrixRef, ...]:
    """Matrices of blocks with seven each."""
    kinds = GROUPS["all"]
    return tuple(MatrixRef(n // len(kinds), kinds[n % len(kinds)]) for n in range(count))


def _draw(*key: object) -> random.Random:
    return random.Random("/".join(map(str, key)))


@cache
def gain(cut: str) -> float:
    """What a single cut adds to the score: most of them take from it."""
    return _draw("gain", cut).gauss(-0.006, 0.01)


@cache
def cost(cut: str) -> float:
    """Nats that a single cut loses of general text: the more, the more is cut."""
    matrix, _, rho = cut.partition("=")
    return _draw("cost", matrix).lognormvariate(-5.0, 1.0) * (1 - float(rho))


@dataclass(frozen=True)
class Landscape:
    """What compositions score on `questions`, asked in `chunks`; gains and costs nearly add up.

    `limited`: whether general text is scored too.
    """

    questions: int = 100
    chunks: int = 1
    limited: bool = False

    def answers(self, job: Mapping[str, Any], study_id: str) -> Iterator[dict[str, Any]]:
        """What a worker reports of a job, one chunk after the other."""
        name, part = job["name"], job["part"]
        composition = Composition.from_dict(job["composition"])
        outcomes = slopes(job["screened"], job["piece"]) if part == "screen" else self.asked(job)
        score = sum(one.score for one in outcomes) / len(outcomes)
        if part == "validation":
            ordered = [outcomes[n] for n in _order(self.questions)]
            ends = [len(ordered) * step // self.chunks for step in range(self.chunks + 1)]
            for step in range(1, self.chunks):
                known = ordered[: ends[step]]
                so_far = sum(one.score for one in known) / len(known)
                chunk = {o.example_id: o.score for o in ordered[ends[step - 1] : ends[step]]}
                report = {"score": so_far, "step": step, "ended": False}
                yield report | {"chunk": json.dumps(chunk)}
        scores = {}
        if self.limited and part == "validation":
            lost = sum(cost(str(cut)) for cut in composition.interventions)
            scores[GENERAL_TEXT] = -PERPLEXITY_NATS - lost
        whole = Evaluation(
            *(name, study_id, str(composition), job["effect"], part),
            score=0.0 if part == "screen" else score,
            log_loss=0.0 if part == "screen" else 1.0 - score + _draw(job["effect"]).random() / 100,
            seconds={"total": 0.0},
            outcomes=outcomes,
            scores=scores,
        )
        result = {"score": score, "step": self.chunks, "ended": True, "finished": True}
        yield result | {"outcomes": outcome_bytes(whole)}

    def asked(self, job: Mapping[str, Any]) -> Sequence[Outcome]:
        """Hits and misses: the easiest questions as far as the score goes, nearly."""
        cuts = Composition.from_dict(job["composition"]).interventions
        chance = _draw("score", job["effect"])
        score = UNEDITED + sum(gain(str(cut)) for cut in cuts)
        found = []
        for n, bar in enumerate(self.bars):
            hit = float(bar < score + chance.gauss(0, 0.01))
            found.append(Outcome(f"q{n}", f"g{n}", hit, -1.0, "x"))
        return found

    @property
    def bars(self) -> Sequence[float]:
        """How hard each question is."""
        return _bars(self.questions)


@cache
def _bars(questions: int) -> Sequence[float]:
    bars = [(n + 0.5) / questions for n in range(questions)]
    random.Random(0).shuffle(bars)
    return bars


@cache
def _order(questions: int) -> Sequence[int]:
    """The order in which trials see the questions."""
    return sorted(range(questions), key=lambda n: seeded_order(f"q{n}"))


@cache
def predicted(cut: str) -> tuple[float, float]:
    """Gain and cost as a screen sees them: within a factor of what comes, often of another sign."""
    chance = _draw("screen", cut)
    factor = chance.lognormvariate(0.3, 0.6)
    return gain(cut) + chance.gauss(0, 0.01), cost(cut) * factor


def slopes(candidates: Sequence[str], piece: int) -> Sequence[Outcome]:
    """A piece of the screen. On text the slope is such that all pieces add up to the cost."""
    found = []
    for text in candidates:
        better, worse = predicted(text)
        if is_text(piece):
            better = (1 - math.sqrt(1 + 2 * TOKENS * worse)) / TOKENS
        matrix = text.partition("=")[0]
        found.append(Outcome(text, matrix, better, 0.0, None, weight=TOKENS))
    return found


NOTHING_TO_DO = {"score": 0.0, "finished": True, "done": True, "step": 0}
"""As `cluster.worker` answers where there is no job; importing it would load torch 64 times."""


class Sleeper(tune.Trainable):  # type: ignore[misc]  # Ray ships no types
    """Takes jobs as `StudyWorker` does; `seconds` are those of all chunks of a trial together."""

    def setup(
        self,
        config: dict[str, Any],
        study_id: str,
        log: str,
        seconds: float,
        landscape: Landscape,
        folder: str | None = None,
    ) -> None:
        """Take the first job. `folder`: the study's, if outcomes are left there and not sent."""
        self._study_id, self._seconds, self._landscape = study_id, seconds, landscape
        self._folder = folder
        node = ray.get_runtime_context().get_node_id()
        self._path = Path(log) / f"{node}-{os.getpid()}.jsonl"
        self._slept = 0.0
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next job."""
        self._job = json.loads(new_config["job"])
        self._run: Iterator[dict[str, Any]] | None = None
        return True

    def give(self, job: str) -> None:
        """Take the next job within the same Tune trial."""
        self.reset_config({"job": job})

    def _write(self, event: str) -> None:
        line = {"time": time.time(), "event": event, "effect": self._job["effect"]}
        line |= {"job": self._job["name"], "slept": self._slept}
        self._slept = 0.0
        with self._path.open("a") as stream:
            stream.write(json.dumps(line) + "\n")

    def step(self) -> dict[str, Any]:
        """Sleep, and answer a chunk."""
        if self._job is None:
            return dict(NOTHING_TO_DO)
        if self._run is None:
            self._write("start")
            self._run = self._landscape.answers(self._job, self._study_id)
        began = time.monotonic()
        result = next(self._run)
        if self._job["part"] == "validation":
            whole = self._seconds / self._landscape.chunks
            time.sleep(max(0.0, whole - (time.monotonic() - began)))
            self._slept += whole
        if result["ended"]:
            if self._folder is not None:
                outcomes = result.pop("outcomes")
                write_outcome_bytes(Path(self._folder), self._job["name"], outcomes)
            self._write("done")
        return result
