"""Any task of lm-evaluation-harness, asked and scored as it asks and scores; an extra."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from tasks.answers import at_top, log_softmax, said, score_classes
from tasks.base import (
    Example,
    Generate,
    Generated,
    Head,
    Outcome,
    Reply,
    Request,
    TokenNll,
    TokenNlls,
    Weigh,
    Weighed,
)
from tasks.errors import InputError, nearest
from tasks.hub import hub
from tasks.identity import content_hash, identify

log = logging.getLogger(__name__)

PREFIX = "lm_eval:"
FEWSHOT_SEED = 1234
"""The harness's own default, so that its runs and ours solve the same examples first."""
GENERATED_TOKENS = 256
"""The harness's own default for open answers."""
TIEBREAK = 1e-5
"""Relative step that makes one likelihood of equals the largest, above what counts as a tie."""
WHOLE = ("word_perplexity", "byte_perplexity", "bits_per_byte")
"""Metrics of a text that count by its words and bytes."""


class LmEval:
    """A task or group of lm-evaluation-harness by its name there: lm_eval:arc_easy, lm_eval:mmlu.

    Source and licence: https://github.com/EleutherAI/lm-evaluation-harness, MIT; the data sets have
    their own. Size: its validation and test splits where it has both, and then those are the parts
    of a study; else the one that the harness scores. `data` names a folder of YAML tasks of your
    own. `num_fewshot` and `limit` mean what they mean there.
    Causal head: the harness's contexts and continuations, word for word. Scoring: its own, per
    example; the score is the first metric of the task that has a value for each example (accuracy
    before accuracy normalised by length), of a whole text its log-likelihood per word. Other
    metrics with a value for each example are kept beside it. Open answers are decoded greedily.
    `metric` is its name there once the examples are loaded; those of a group joined by a slash.
    """

    about = "any task of lm-evaluation-harness by its name; data: a folder of YAML"
    heads: frozenset[Head] = frozenset({"causal"})

    def __init__(
        self,
        name: str,
        num_fewshot: int | None = None,
        limit: int | None = None,
        folder: str | None = None,
    ) -> None:
        """Nothing is imported or read before `load` or `outcome`."""
        self.name = name
        self.num_fewshot = num_fewshot
        self.limit = limit
        self.folder = folder
        self.metric = "score"
        self._docs: dict[tuple[str, str], Any] = {}

    def load(self, source: str | None = None, revision: str | None = None) -> list[Example]:
        """Build every example of validation and test.

        `source`: a folder of YAML tasks. Raises InputError when lm-eval or the task is missing.
        """
        if revision is not None:
            raise InputError(
                f"revision {revision!r} does not apply to {self.name}; pin the data in its YAML"
            )
        if source is not None and source != self.folder:
            self.folder = source
            self.__dict__.pop("_leaves", None)
        drafts = [
            draft
            for name, leaf in self._leaves.items()
            for part, split in _parts(leaf)
            for draft in self._examples(name, leaf, part, split)
        ]
        if not drafts:
            raise InputError(f"{self.name} has no validation or test examples")
        first = {str(draft.columns["task"]): draft for draft in reversed(drafts)}
        names = [self._metric(name, draft) for name, draft in first.items()]
        self.metric = "/".join(sorted(set(names)))
        return identify(drafts)

    def _metric(self, name: str, example: Example) -> str:
        """The metric that scores a task: that of its first example with a made-up reply."""
        leaf = self._leaves[name]
        doc = self._doc(name, str(example.columns["split"]), example)
        kind = example.columns["kind"]
        try:
            if kind == "loglikelihood_rolling":
                found = leaf.process_results(doc, (-1.0,))
                return "word_perplexity" if WHOLE[0] in found else "byte_perplexity"
            if kind == "generate_until":
                return next(iter(_numbers(leaf, leaf.process_results(doc, [""]))))
            replies = [(-1.0, False)] * len(example.pairs)
            return next(iter(_numbers(leaf, leaf.process_results(doc, replies))), "acc")
        except Exception as error:  # a rule of the task's own, which may refuse what is made up
            log.info("the metric of %s is only known after it has been scored: %r", name, error)
            return "score"

    def request(self, example: Example, head: Head) -> Request:
        """Return what the harness would ask."""
        kind = example.columns["kind"]
        if kind == "loglikelihood_rolling":
            return TokenNll(example.prompt)
        if kind == "generate_until":
            stop = tuple(text for text, _ in example.pairs)
            tokens = int(example.columns["max_new_tokens"])
            return Generate(example.prompt, tokens, example.answer, stop)
        return Weigh(example.pairs)

    def outcome(self, example: Example, reply: Reply) -> Outcome:
        """Score one reply by the harness's own rule for the task."""
        leaf = self._leaves[str(example.columns["task"])]
        doc = self._doc(str(example.columns["task"]), str(example.columns["split"]), example)
        match reply:
            case Weighed():
                return _weighed(example, reply, _weighed_numbers(leaf, doc, example, reply))
            case TokenNlls(nats):
                return _whole(example, -nats, leaf.process_results(doc, (-nats,)))
            case Generated(text):
                found = _mixed(
                    (share, _numbers(leaf, leaf.process_results(doc, [_filtered(leaf, doc, way)])))
                    for way, share in reply.texts or ((text, 1.0),)
                )
                score, measures = _primary(example, found, None)
                log_probability = reply.log_likelihood
                return Outcome(
                    example.id,
                    example.group,
                    score,
                    log_probability,
                    text.strip(),
                    tokens=reply.answer_tokens,
                    measures=measures,
                    tied=reply.tied,
                )
        raise TypeError(f"{self.name} does not ask for {type(reply).__name__}")

    @cached_property
    def _leaves(self) -> dict[str, Any]:
        """The harness's task objects by name; a group is all its tasks."""
        name = self.name.removeprefix(PREFIX)
        try:
            from lm_eval.tasks import TaskManager
        except ImportError as error:
            raise InputError(
                f"task {self.name!r} needs lm-evaluation-harness; "
                "install it with: pip install 'laser-search[lm-eval]'"
            ) from error
        folder = None if self.folder is None else Path(self.folder).expanduser()
        if folder is not None and not folder.is_dir():
            raise InputError(
                f"{folder} is not a folder; give the folder that contains the task's YAML"
            )
        # Its own 14,000 tasks take a dozen seconds to index, and a folder rarely builds on them.
        manager = TaskManager(include_path=folder and str(folder), include_defaults=folder is None)
        if folder is not None and name not in manager.task_index:
            manager = TaskManager(include_path=str(folder))
        if name not in manager.task_index:
            raise InputError(
                f"lm-evaluation-harness has no task {name!r}{nearest(name, manager.task_index)}"
            )
        with hub() as unreachable:
            try:
                leaves: dict[str, Any] = manager.load([name])["tasks"]
            except Exception as error:  # its loaders raise many kinds; each means "not available"
                first = unreachable or (str(error).strip().splitlines() or [repr(error)])[0]
                raise InputError(f"task {self.name!r} cannot be loaded: {first}") from error
        for leaf in leaves.values():
            # As in the harness: a task that fixes no examples at all keeps none.
            if self.num_fewshot is not None and leaf.get_config("num_fewshot") != 0:
                leaf.set_config(key="num_fewshot", value=self.num_fewshot)
        return leaves

    def _doc(self, name: str, split: str, example: Example) -> Any:
        key = (name, split)
        if key not in self._docs:
            leaf = self._leaves[name]
            self._docs[key] = getattr(leaf, f"{split}_docs")()
        return self._docs[key][int(example.columns["doc"])]

    def _examples(
        self, name: str, leaf: Any, part: Literal["", "validation", "test"], split: str
    ) -> Iterator[Example]:
        # Solved examples are drawn from one stream, document by document, as the harness draws.
        leaf.set_fewshot_seed(seed=FEWSHOT_SEED)
        docs = getattr(leaf, f"{split}_docs")()
        shots = leaf.config.num_fewshot or 0
        for number, doc in enumerate(docs):
            if self.limit is not None and number >= self.limit:
                break
            context = leaf.fewshot_context(
                doc, num_fewshot=shots, gen_prefix=leaf.doc_to_prefix(doc)
            )
            found = leaf.construct_requests(doc=doc, ctx=context, metadata=(name, number, 1))
            instances = found if isinstance(found, list) else [found]
            columns = {"task": name, "split": split, "doc": number}
            yield _example(leaf, doc, instances, columns, part)


def _parts(leaf: Any) -> list[tuple[Literal["", "validation", "test"], str]]:
    """Part of a study and split of the data: both, or the one that the harness scores."""
    if leaf.has_validation_docs() and leaf.has_test_docs():
        return [("validation", "validation"), ("test", "test")]
    return [("", "test" if leaf.has_test_docs() else "validation")]


def _example(
    leaf: Any,
    doc: Any,
    instances: Sequence[Any],
    columns: dict[str, Any],
    part: Literal["", "validation", "test"],
) -> Example:
    kind = str(leaf.OUTPUT_TYPE)
    columns = {**columns, "kind": kind}
    arguments = [instance.args for instance in instances]
    if any(len(given) > 2 for given in arguments):
        raise InputError(
            f"task {columns['task']!r} contains images or audio; only text is supported"
        )
    text, target = leaf.doc_to_text(doc), leaf.doc_to_target(doc)
    group = content_hash(
        columns["task"], str(text), str(target) if kind != "multiple_choice" else 0
    )
    prompt, answer = str(arguments[0][0]), str(target)
    pairs: tuple[tuple[str, str], ...] = ()
    choices: tuple[str, ...] = ()
    label = None
    if kind == "multiple_choice":
        choices = tuple(map(str, leaf.doc_to_choice(doc)))
        label = _label(text if leaf.multiple_input else target, choices)
        answer = choices[label] if label is not None else answer
    if kind == "generate_until":
        options = arguments[0][1]
        stop = options.get("until") or []
        stop = [stop] if isinstance(stop, str) else stop
        pairs = tuple((text, "") for text in stop)
        columns["max_new_tokens"] = int(options.get("max_gen_toks", GENERATED_TOKENS))
        if options.get("do_sample"):
            log.warning("%s samples its answers; they are decoded greedily here", columns["task"])
        delimiter = leaf.config.target_delimiter
        answer = f"{delimiter}{target}" if isinstance(target, str) else ""
    elif kind != "loglikelihood_rolling":
        pairs = tuple((str(before), str(after)) for before, after in arguments)
    return Example("", group, prompt, answer, choices, label, columns, None, part, pairs)


def _label(gold: Any, choices: Sequence[str]) -> int | None:
    """The right choice, None where there are several or the data names none."""
    if isinstance(gold, str):
        return choices.index(gold) if gold in choices else None
    return gold if isinstance(gold, int) and 0 <= gold < len(choices) else None


def _numbers(leaf: Any, results: Mapping[str, Any]) -> dict[str, float]:
    """Metrics that have a number for this example, better when higher."""
    higher = leaf.higher_is_better()
    return {
        name: float(value)
        for name, value in results.items()
        if isinstance(value, int | float) and higher.get(name, True) and name != "perplexity"
    }


def _weighed_numbers(leaf: Any, doc: Any, example: Example, reply: Weighed) -> dict[str, float]:
    """The harness's metrics of continuations, averaged over how ties may be broken.

    Its argmax takes the first of equals; here each of them is made the likeliest in turn. A rule of
    a task's own may add likelihoods up, so there it is made so by a hair.
    """

    def numbers(values: Sequence[float], greedy: Sequence[bool]) -> dict[str, float]:
        results: list[Any] = list(zip(values, greedy, strict=True))
        return _numbers(leaf, leaf.process_results(doc, results))

    values, count = reply.log_likelihoods, len(example.choices)
    if not count:  # one continuation, right if greedy decoding says it
        said_it = reply.greedy[0]
        rest = [share == 1 for share in reply.greedy[1:]]
        ways = [(said_it, True), (1 - said_it, False)]
        return _mixed((share, numbers(values, [way, *rest])) for share, way in ways if share)
    greedy = [share == 1 for share in reply.greedy]
    found = numbers(values, greedy)
    own_rule = callable(leaf.config.process_results)
    for metric in found:
        top = _top_of(metric, example, reply)
        if len(top) > 1 and (own_rule or metric.startswith(("acc", "exact_match"))):
            best = max(values[place] for place in top)
            high = best + TIEBREAK * max(1.0, abs(best)) if own_rule else 0.0
            raised = [numbers([*values[:n], high, *values[n + 1 :]], greedy) for n in top]
            found[metric] = sum(one[metric] for one in raised) / len(raised)
    return found


def _top_of(metric: str, example: Example, reply: Weighed) -> tuple[int, ...]:
    """The choices that tie for the first place by what a metric of the harness compares."""
    values = list(reply.log_likelihoods[: len(example.choices)])
    if metric == "acc_norm":
        values = [v / max(1, len(c)) for v, c in zip(values, example.choices, strict=True)]
    elif metric == "acc_bytes":
        sizes = [max(1, len(choice.encode())) for choice in example.choices]
        values = [value / size for value, size in zip(values, sizes, strict=True)]
    elif metric == "acc_mutual_info":
        alone = reply.log_likelihoods[len(example.choices) :]
        values = [v - a for v, a in zip(values, alone, strict=False)] or values
    return at_top(values, flat=reply.flat)


def _mixed(ways: Iterable[tuple[float, dict[str, float]]]) -> dict[str, float]:
    """Metrics averaged with the shares that come with them."""
    total: dict[str, float] = {}
    for share, found in ways:
        for name, value in found.items():
            total[name] = total.get(name, 0.0) + share * value
    return total


def _primary(
    example: Example, found: dict[str, float], fallback: float | None
) -> tuple[float, dict[str, float]]:
    """The score and the other metrics."""
    if found:
        name = next(iter(found))
        return found[name], {key: value for key, value in found.items() if key != name}
    if fallback is None:
        raise InputError(
            f"task {example.columns['task']!r} has no metric with a value for each example; "
            "a search needs one"
        )
    return fallback, {}


def _weighed(example: Example, reply: Weighed, found: dict[str, float]) -> Outcome:
    """Score continuations; further pairs than choices only serve metrics of the task's own."""
    if not example.choices:
        score, measures = _primary(example, found, float(reply.greedy[0]))
        return Outcome(
            example.id,
            example.group,
            score,
            reply.log_likelihoods[0],
            None,
            tokens=reply.lengths_tokens[0],
            measures=measures,
            tied=max(reply.tied[:1], default=1),
        )
    own = reply.log_likelihoods[: len(example.choices)]
    values, top = log_softmax(own), at_top(own, flat=reply.flat)
    if example.label is None:
        score, measures = _primary(example, found, None)
        named = said(example.choices, top)
        return Outcome(
            example.id, example.group, score, 0.0, named, measures=measures, tied=len(top)
        )
    outcome = score_classes(example, values, example.label, example.choices, top)
    score, measures = _primary(example, found, outcome.score)
    return Outcome(
        example.id,
        example.group,
        score,
        outcome.log_probability,
        outcome.prediction,
        tokens=reply.lengths_tokens[example.label],
        confidence=outcome.confidence,
        brier=outcome.brier,
        measures=measures,
        tied=outcome.tied,
    )


def _whole(example: Example, log_likelihood: float, results: Mapping[str, Any]) -> Outcome:
    """Log-likelihood per word (or byte) of a text, weighted by their number."""
    counts = [results[name][1] for name in WHOLE if name in results]
    if not counts:
        raise InputError(
            f"task {example.columns['task']!r} needs one of the metrics {', '.join(WHOLE)}"
        )
    weight = float(counts[0])
    mean = log_likelihood / weight
    return Outcome(example.id, example.group, mean, mean, None, weight=weight)


def _filtered(leaf: Any, doc: Any, text: str) -> Any:
    """A generated text as the task's first filter leaves it."""
    from lm_eval.api.instance import Instance

    instance = Instance(request_type="generate_until", doc=doc, arguments=("", {}), idx=0)
    instance.resps = [text]
    ensemble = leaf._filters[0]  # the harness's own evaluator reads it so
    ensemble.apply([instance])
    return instance.filtered_resps[ensemble.name]
