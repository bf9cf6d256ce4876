"""Does the tool claim gains where there are none? Studies of questions with shuffled answers.

    python benchmarks/landscape/null.py --table ./landscape/sst2 --studies 100 --trials 100
    python benchmarks/landscape/null.py --table ./landscape/demo --interventions 1

The model says the same whatever the right answers are, so what it says under a composition is
computed once and scored again under every shuffle. SST-2: the labels change places. Demo: the
persons change places, each with all of its facts. A claim is a verdict that says "raises".
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from replay import IDENTITY, configured, prepare
from table import Landscape, TableEvaluator

from search.cuts.composition import Composition
from search.demo.words import ANSWERS
from search.durable import write_file
from search.evaluation.evaluator import Evaluator, Questions, open_evaluator
from search.loop import run_study
from search.report.text import sentence
from search.space import Space
from search.study.driven_study import DrivenStudy
from search.study.jobs import Job
from search.study.outcomes import Evaluation
from search.study.subject import Subject
from search.study.verdict import Verdict, conclude
from tasks.base import Example, Head, Outcome, Reply, Request, Weigh, Weighed
from tasks.datasets import Split


@dataclass(frozen=True)
class Replies:
    """What a model says of every possible answer: `likelihoods` [questions, answers] in nats.

    `said` [questions, answers]: whether it is the model's first choice, its share where some tie.
    """

    likelihoods: NDArray[np.float32]
    said: NDArray[np.float32]


def words_of(example: Example) -> tuple[str, ...]:
    """The answers that a question could have."""
    if example.choices:
        return example.choices
    return next(words for words in ANSWERS.values() if example.answer in words)


class EveryAnswer:
    """The demo's task, asked for every answer of the relation and not only for the right one."""

    name, metric = "every-answer", "accuracy"
    heads: frozenset[Head] = frozenset({"causal"})

    def __init__(self) -> None:
        self.replies: dict[str, Weighed] = {}

    def request(self, example: Example, head: Head) -> Request:
        """The prompt with each answer after one space, as jsonl asks for one."""
        return Weigh(tuple((example.prompt, f" {word}") for word in words_of(example)))

    def outcome(self, example: Example, reply: Reply) -> Outcome:
        """Keep the reply; the score is that of the true answer."""
        assert isinstance(reply, Weighed)
        self.replies[example.id] = reply
        place = words_of(example).index(example.answer)
        right, likelihood = float(reply.greedy[place]), reply.log_likelihoods[place]
        return Outcome(example.id, example.group, right, likelihood, None)


class Answers:
    """The replies to all questions of a table's model, computed once and kept beside the table."""

    def __init__(self, landscape: Landscape) -> None:
        self.landscape = landscape
        self.classes = all(x.choices for x in landscape.examples("validation"))
        self._known: dict[tuple[str, str], Replies] = {}
        self._unsaved: list[tuple[str, str]] = []
        self._evaluators: dict[str, tuple[EveryAnswer, Evaluator]] = {}
        for path in sorted(landscape.folder.glob("answers-*.parquet")):
            for row in pq.ParquetFile(path).read().to_pylist():
                shape = (len(landscape.examples(row["part"])), -1)
                self._known[row["part"], row["effect"]] = Replies(
                    np.frombuffer(row["likelihoods"], np.float32).reshape(shape),
                    np.frombuffer(row["said"], np.float32).reshape(shape),
                )

    def replies(self, composition: Composition, part: str) -> Replies:
        """What the model says to the questions of a part."""
        key = (part, self.landscape.effect(composition))
        if key not in self._known:
            make = self._of_classes if self.classes else self._of_words
            self._known[key] = make(composition, part)
            self._unsaved.append(key)
        return self._known[key]

    def save(self) -> None:
        """Keep what was added; classes are in the table itself."""
        self.landscape.save()
        rows = [(part, effect, self._known[part, effect]) for part, effect in self._unsaved]
        self._unsaved.clear()
        if self.classes or not rows:
            return
        table = pa.table(
            {
                "part": [part for part, _, _ in rows],
                "effect": [effect for _, effect, _ in rows],
                "likelihoods": [found.likelihoods.tobytes() for _, _, found in rows],
                "said": [found.said.tobytes() for _, _, found in rows],
            }
        )
        path = self.landscape.folder / f"answers-{time.time_ns()}-{uuid.uuid4().hex[:6]}.parquet"
        write_file(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))

    def _of_classes(self, composition: Composition, part: str) -> Replies:
        """Of two classes the log-probability of the one gives that of the other."""
        truth = self.landscape.truth(composition, part)
        examples = self.landscape.examples(part)
        rows = np.arange(len(examples))
        right = np.array([x.choices.index(x.answer) for x in examples])
        likelihoods = np.empty((len(examples), 2), np.float32)
        likelihoods[rows, right] = truth.log_probabilities
        other = np.log(-np.expm1(np.minimum(truth.log_probabilities, -1e-12)))
        likelihoods[rows, 1 - right] = other
        said = np.zeros((len(examples), 2), np.float32)
        said[rows, right], said[rows, 1 - right] = truth.scores, 1 - truth.scores
        return Replies(likelihoods, said)

    def _of_words(self, composition: Composition, part: str) -> Replies:
        examples = self.landscape.examples(part)
        if part not in self._evaluators:
            task = EveryAnswer()
            plan = self.landscape.plan
            questions = Questions(task, {"validation": examples})
            evaluator = open_evaluator(plan.source, questions, plan.config.factors)
            self._evaluators[part] = (task, evaluator)
        task, evaluator = self._evaluators[part]
        effect = self.landscape.effect(composition)
        found = evaluator.evaluate(Job(effect or "baseline", composition, effect, "validation"))
        if self.landscape.knows(effect, part):
            assert found.score == self.landscape.truth(composition, part).score, effect
        replies = [task.replies[x.id] for x in examples]
        return Replies(
            np.array([r.log_likelihoods for r in replies], np.float32),
            np.array([r.greedy for r in replies], np.float32),
        )


def shuffled(examples: Sequence[Example], seed: int) -> dict[str, int]:
    """Every question's new answer, as a place among its words, by id.

    Labels change places one by one; facts by person, so that a person's answers agree.
    """
    rng = random.Random(seed)
    if all(example.choices for example in examples):
        places = [example.choices.index(example.answer) for example in examples]
        rng.shuffle(places)
        return {example.id: place for example, place in zip(examples, places, strict=True)}
    facts: dict[str, dict[tuple[str, ...], int]] = defaultdict(dict)
    for example in examples:
        words = words_of(example)
        facts[example.group][words] = words.index(example.answer)
    groups = sorted(facts)
    others = rng.sample(groups, len(groups))
    given = dict(zip(groups, others, strict=True))
    return {x.id: facts[given[x.group]][words_of(x)] for x in examples}


class ShuffledEvaluator(TableEvaluator):
    """An evaluator of a table whose right answers are others."""

    def __init__(self, answers: Answers, split: Split, places: Mapping[str, int]) -> None:
        super().__init__(answers.landscape)
        self._answers = answers
        self._places = places
        self._parts: dict[str, Sequence[Example]] = {
            "validation": split.validation,
            "test": split.test,
        }
        own = {x.id: ("test", n) for n, x in enumerate(answers.landscape.examples("test"))}
        own |= {
            x.id: ("validation", n) for n, x in enumerate(answers.landscape.examples("validation"))
        }
        self._row = own

    def evaluate(self, job: Job) -> Evaluation:
        """Score what the model says by the shuffled answers."""
        outcomes = []
        examples = self._parts[job.part]
        found = self._answers.replies(job.composition, self._row[examples[0].id][0])
        for example in examples:
            row, place = self._row[example.id][1], self._places[example.id]
            score = float(found.said[row, place])
            likelihood = float(found.likelihoods[row, place])
            words = words_of(example)
            said = np.flatnonzero(found.said[row])
            word = words[said[0]] if len(said) else "?"
            outcomes.append(Outcome(example.id, example.group, score, likelihood, word))
        return Evaluation(
            name=job.name,
            study=IDENTITY.study_id,
            composition=str(job.composition),
            effect=job.effect,
            part=job.part,
            score=sum(o.score for o in outcomes) / len(outcomes),
            log_loss=-sum(o.log_probability for o in outcomes) / len(outcomes),
            seconds={},
            outcomes=tuple(outcomes),
        )


def with_answers(examples: Sequence[Example], places: Mapping[str, int]) -> list[Example]:
    """The questions as the shuffled study is told them."""
    return [
        replace(
            x,
            answer=words_of(x)[places[x.id]],
            label=places[x.id] if x.label is not None else None,
        )
        for x in examples
    ]


def judge(answers: Answers, seed: int, strategy: str, trials: int, interventions: int) -> Verdict:
    """One whole study of shuffled answers, to its verdict on test."""
    plan = answers.landscape.plan
    config = configured(answers.landscape.config, strategy, trials, seed)
    everything = [*plan.split.validation, *plan.split.test]
    places = shuffled(everything, seed)
    split = Split(
        with_answers(plan.split.validation, places), with_answers(plan.split.test, places)
    )
    space = Space(plan.space.matrices, plan.space.ladder, interventions)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        setting, _ = prepare(answers.landscape, config, split.validation)
        setting = replace(setting, space=space)
        subject = Subject(folder, IDENTITY, config, space, plan.max_ranks, plan.objective, setting)
        study = DrivenStudy.open(subject)
        evaluator: Any = ShuffledEvaluator(answers, split, places)
        run_study(study, evaluator)
        verdict = conclude(folder, IDENTITY, study.chosen(), split, plan.objective)
    if verdict is None:
        raise SystemExit(f"study {seed} has no verdict: {study.stopped}")
    return verdict


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts over the studies."""
    claims = [row for row in rows if row["claims"]]
    return {
        "studies": len(rows),
        "claims a gain on test": len(claims),
        "claims a loss": sum(row["loss"] for row in rows),
        "nothing beat the baseline on validation": sum(not row["composition"] for row in rows),
        "p below 0.05 and a gain": sum(
            row["p_value"] < 0.05 and row["difference"] > 0 for row in rows if row["composition"]
        ),
        "mean gain on validation": round(float(np.mean([row["validation"] for row in rows])), 4),
        "mean gain on test": round(float(np.mean([row["difference"] for row in rows])), 4),
        "claimed": [{k: row[k] for k in ("seed", "sentence")} for row in claims],
    }


def row_of(seed: int, verdict: Verdict) -> dict[str, Any]:
    """What is counted of one study."""
    said = sentence(verdict, verdict.metric)
    found = verdict.comparisons.get("test")
    on_validation = verdict.comparisons.get("validation")
    return {
        "seed": seed,
        "composition": "" if verdict.trial is None else verdict.composition,
        "claims": " raises " in said,
        "loss": " LOWERS " in said,
        "validation": on_validation.difference if on_validation else 0.0,
        "difference": found.difference if found else 0.0,
        "p_value": found.p_value if found else 1.0,
        "sentence": said,
    }


def main() -> None:
    """Run the studies and count the claims."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--interventions", type=int, default=3)
    parser.add_argument("--strategy", default="tpe")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    answers = Answers(Landscape(asked.table))
    rows = []
    for seed in range(asked.studies):
        verdict = judge(answers, seed, asked.strategy, asked.trials, asked.interventions)
        rows.append(row_of(seed, verdict))
        answers.save()
        print(f"{seed}: {rows[-1]['sentence']}", file=sys.stderr, flush=True)
    print(json.dumps(summary(rows), indent=1))


if __name__ == "__main__":
    main()
