"""A cut model trained on the task's own kind of data until it has recovered (extra ``peft``)."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from search.calibration.calibration import study_factors
from search.cuts.composition import Composition
from search.durable import write_bytes, write_json, write_text
from search.export.base import Base
from search.export.card import healed_card
from search.export.dense import dense_bytes, write_dense
from search.export.factored import (
    KEY,
    FactoredLinear,
    FactorPlan,
    load_factored,
    plan_factored,
    write_factored,
)
from search.export.folder import MARK, new_folder
from search.export.lora import require_peft
from search.export.run import open_base
from search.export.scoring import Scorer
from search.export.training import Collator, step_counter, training_rows
from search.export.verify import ADAPTER, CUT, Verification, verify_afresh
from search.model import own_device
from search.phases import SILENT, Phases, in_batches
from search.plan import Plan, open_task
from search.published import data_name, model_name
from search.study.outcomes import Evaluation, outcome_bytes
from search.study.study_record import StudyRecord
from search.study.trials import TrialRecord
from search.weights.edit import Editor
from search.weights.products import Products
from tasks.base import Example
from tasks.comparison import Comparison, compare
from tasks.errors import InputError
from tasks.scoring import by_task, mean_score

REPORT = "healing.json"


@dataclass(frozen=True)
class Recipe:
    """How to train.

    `method` ``factors`` trains the thin layers themselves, ``lora`` an adapter of rank `rank` on
    every linear layer. `merged`: saved as one plain dense model, else with layers or adapter apart.
    `task`: the label of the task that the training data is of, where the study asks several.
    """

    steps: int
    method: Literal["lora", "factors"] = "lora"
    rank: int = 8
    learning_rate: float = 1e-4
    batch: int = 16
    seed: int = 0
    merged: bool = True
    task: str = ""


@dataclass(frozen=True)
class Healing:
    """What training did, by part: scores of the base, after the cut and after training.

    `parameters`: of the base, of the result, and how many were trained. `left_out`: training
    examples that validation or test ask too. `comparisons`: the cut model against the healed one.
    """

    recipe: Recipe
    trial: int
    composition: str
    train: str
    examples: int
    left_out: int
    loss: float
    parameters: dict[str, int]
    scores: dict[str, dict[str, float]]
    comparisons: dict[str, Comparison]


def heal(
    record: StudyRecord,
    trial: TrialRecord,
    train: str,
    recipe: Recipe,
    out: Path,
    *,
    overwrite: bool = False,
    phases: Phases = SILENT,
) -> tuple[Healing, Verification]:
    """Cut the model as `trial` did, train it on the file `train`, score it, write and verify it.

    Training examples that the study asks on validation or test are left out. Raises InputError.
    """
    require_peft()
    phases.enter("reading the checkpoint")
    base = open_base(record)
    scorer = Scorer(record, trial.effect)
    examples, left_out = training_examples(scorer.plan, train, recipe.task)
    composition = trial.composition
    needed = dense_bytes(base, base.place(composition))
    keep = (base.reader.folder, record.folder)
    with new_folder(out, needed, overwrite=overwrite, keep=keep) as partial:
        phases.enter("cutting the model")
        with tempfile.TemporaryDirectory(dir=partial) as scratch:
            patient = _Patient.cut(base, record, composition, recipe, Path(scratch))
        course = _treat(patient, base, scorer, examples, phases)
        phases.enter("writing the model")
        patient.save(base, record, partial)
        base.source.tokenizer().save_pretrained(partial)
        found = Healing(
            recipe=recipe,
            trial=trial.number,
            composition=str(composition),
            train=data_name(train) or train,
            examples=len(examples),
            left_out=left_out,
            loss=course.loss,
            parameters=course.parameters,
            scores=course.scores,
            comparisons=course.comparisons,
        )
        facts = {"format": _kind(recipe), "trial": trial.number, **_facts(record, found)}
        write_json(partial / REPORT, asdict(found))
        write_json(partial / MARK, facts)
        write_text(partial / "README.md", healed_card(record, asdict(found), None))
    healed = course.sides["healed"]["validation"]
    verdict = _verify(out, record, trial, _kind(recipe), healed, phases)
    write_text(out / "README.md", healed_card(record, asdict(found), verdict))
    return found, verdict


@dataclass(frozen=True)
class _Course:
    """What was measured on the way: evaluations by side (base, cut, healed) and part."""

    sides: dict[str, dict[str, Evaluation]]
    loss: float
    parameters: dict[str, int]

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """Mean scores by side and part and, of several tasks, by task."""
        return {
            side: {
                f"{part} {task}".strip(): mean_score(outcomes)
                for part, one in found.items()
                for task, outcomes in by_task(one.outcomes).items()
            }
            for side, found in self.sides.items()
        }

    @property
    def comparisons(self) -> dict[str, Comparison]:
        """The cut model against the healed one, by part and, of several tasks, by task."""
        found = {}
        for part, cut in self.sides["cut"].items():
            after = by_task(self.sides["healed"][part].outcomes)
            for task, before in by_task(cut.outcomes).items():
                found[f"{part} {task}".strip()] = compare(before, after[task])
        return found


def _treat(
    patient: _Patient, base: Base, scorer: Scorer, examples: Sequence[Example], phases: Phases
) -> _Course:
    """Score the base and the cut model, train, and score again."""

    def scored(model: Any, side: str) -> dict[str, Evaluation]:
        return {
            part: scorer.score(model, part, heard=in_batches(phases, f"{side} on {part}"))
            for part in scorer.parts
        }

    phases.enter("loading the model")
    whole = base.source.load(own_device())
    sides: dict[str, dict[str, Evaluation]] = {}
    sides["base"] = scored(whole, "base model")
    scorer.baselines = {part: found.scores for part, found in sides["base"].items()}
    size = _count(whole)
    del whole
    sides["cut"] = scored(patient.model, "cut model")
    loss, trained = patient.train(scorer.plan, examples, phases)
    sides["healed"] = scored(patient.asked(), "healed model")
    return _Course(sides, loss, {"base": size, "healed": patient.size(), "trained": trained})


def _verify(
    out: Path,
    record: StudyRecord,
    trial: TrialRecord,
    kind: str,
    expected: Evaluation,
    phases: Phases,
) -> Verification:
    """Load what was written afresh; it must answer as in this process."""
    with tempfile.TemporaryDirectory() as name:
        outcomes = Path(name) / "healed.parquet"
        write_bytes(outcomes, outcome_bytes(expected))
        return verify_afresh(out.absolute(), record.folder, trial.number, kind, outcomes, phases)


def _kind(recipe: Recipe) -> str:
    if recipe.merged:
        return "dense"
    return "factored" if recipe.method == "factors" else "healed-lora"


def _facts(record: StudyRecord, found: Healing) -> dict[str, Any]:
    model = record.config.model
    return {
        "base_model": model_name(model.path),
        "revision": model.revision,
        "composition": found.composition,
        "study": record.identity.study_id,
        "versions": record.identity.versions,
    }


def training_examples(plan: Plan, train: str, task: str = "") -> tuple[list[Example], int]:
    """The examples in `train` that the study does not ask, and how many were left out.

    `task`: the label of the one that they are of, where the study asks several. Raises InputError
    if there is no such task or no example is left.
    """
    goals = plan.config.goals
    if task not in goals:
        raise InputError(
            f"task {task!r} is not a task of the study; use --task to choose which of "
            f"{', '.join(goals)} the training data is for"
        )
    known = {(x.prompt, x.text_pair) for x in plan.split.examples}
    found = open_task(goals[task], plan.source.head).load(train, None)
    kept = [replace(x, task=task) for x in found if (x.prompt, x.text_pair) not in known]
    if not kept:
        raise InputError(
            f"{train} contains only examples that the study uses for validation or test; "
            "give data that was set aside for training"
        )
    return kept, len(found) - len(kept)


class _Patient:
    """The model under treatment: cut, then trained, then saved."""

    def __init__(self, model: Any, composition: Composition, recipe: Recipe) -> None:
        self.model = model
        self._composition = composition
        self._recipe = recipe
        self._adapted: Any = None

    @staticmethod
    def cut(
        base: Base, record: StudyRecord, composition: Composition, recipe: Recipe, scratch: Path
    ) -> _Patient:
        """The model with the composition applied: factored layers, or dense."""
        store = study_factors(record)
        if recipe.method == "factors":
            plan: FactorPlan = plan_factored(base, base.place(composition), Products(store))
            write_factored(base, plan, store, scratch)
            model = load_factored(scratch, dtype=base.source.torch_dtype).to(own_device())
        else:
            model = base.source.load(own_device())
            Editor(model, base.matrices.values(), store).apply(composition)
        return _Patient(model, composition, recipe)

    def train(
        self, plan: Plan, examples: Sequence[Example], phases: Phases = SILENT
    ) -> tuple[float, int]:
        """Train in place; returns the mean loss and the number of trained parameters."""
        from transformers import PrinterCallback, Trainer, TrainingArguments

        recipe = self._recipe
        phases.enter("training: step", recipe.steps)
        tokenizer = plan.source.tokenizer()
        rows = training_rows(self.model, tokenizer, plan.task, examples, plan.source.head)
        target = self._open(plan)
        trained = sum(p.numel() for p in target.parameters() if p.requires_grad)
        with tempfile.TemporaryDirectory() as scratch:
            options = TrainingArguments(
                scratch,
                max_steps=recipe.steps,
                per_device_train_batch_size=recipe.batch,
                learning_rate=recipe.learning_rate,
                warmup_steps=recipe.steps // 10,
                seed=recipe.seed,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                logging_strategy="no",
                use_cpu=own_device() == "cpu",
                remove_unused_columns=False,
            )
            pad = tokenizer.pad_token_id
            config = self.model.config.get_text_config()
            fill = pad if pad is not None else getattr(config, "pad_token_id", None) or 0
            trainer = Trainer(
                target,
                options,
                train_dataset=rows,
                data_collator=Collator(fill),
                callbacks=[step_counter(phases)],
            )
            trainer.remove_callback(PrinterCallback)  # standard output is for results
            done = trainer.train()
        target.eval().requires_grad_(False)
        return float(done.training_loss), trained

    def _open(self, plan: Plan) -> Any:
        """The model with gradients where they are wanted."""
        if self._recipe.method == "factors":
            self.model.requires_grad_(False)
            for module in self.model.modules():
                if isinstance(module, FactoredLinear):
                    module.requires_grad_(True)
            return self.model
        peft = require_peft()
        modules = sorted(
            {
                matrix.module
                for matrix in plan.matrices
                if matrix.block
                and type(self.model.get_submodule(matrix.module)).__name__ in ("Linear", "Conv1D")
            }
        )
        kinds = {type(self.model.get_submodule(name)).__name__ for name in modules}
        config = peft.LoraConfig(
            r=self._recipe.rank,
            lora_alpha=2 * self._recipe.rank,
            target_modules=modules,
            fan_in_fan_out=kinds == {"Conv1D"},
        )
        torch.manual_seed(self._recipe.seed)
        self._adapted = peft.get_peft_model(self.model, config)
        return self._adapted

    def asked(self) -> Any:
        """The trained model as a predictor takes it, merged if it will be saved so."""
        if self._recipe.merged:
            if self._adapted is not None:
                self.model, self._adapted = self._adapted.merge_and_unload(), None
            merge_layers(self.model)
        return self.model

    def size(self) -> int:
        """Parameters of what is saved."""
        return _count(self.model)

    def save(self, base: Base, record: StudyRecord, out: Path) -> None:
        """Write what was trained to `out`."""
        if self._adapted is None:
            self.model.to("cpu").save_pretrained(out, max_shard_size=base.largest_shard_bytes())
            return
        (out / CUT).mkdir()
        placed = base.place(self._composition)
        write_dense(base, placed, study_factors(record), out / CUT)
        for config in self._adapted.peft_config.values():
            config.base_model_name_or_path = CUT  # beside it, wherever both are put
        # Left to itself, peft asks the hub for a model of that name, to see if its vocabulary grew.
        self._adapted.save_pretrained(str(out / ADAPTER), save_embedding_layers=False)
        # Peft's own card is an empty form that names the local folder; ours says what was done.
        (out / ADAPTER / "README.md").unlink(missing_ok=True)


def merge_layers(model: nn.Module) -> None:
    """Multiply every FactoredLinear out to the dense Linear that plain transformers expects."""
    from transformers.pytorch_utils import Conv1D

    thin = {n: m for n, m in model.named_modules() if isinstance(m, FactoredLinear)}
    if not thin:
        return
    with torch.device("meta"):
        original: Any = type(model).__mro__[1]
        skeleton = original(model.config)
    for name, module in thin.items():
        owner, _, leaf = name.rpartition(".")
        kind = Conv1D if isinstance(skeleton.get_submodule(name), Conv1D) else nn.Linear
        setattr(model.get_submodule(owner), leaf, _merged(module, kind))
    delattr(model.config, KEY)


def _merged(module: FactoredLinear, kind: Any) -> nn.Module:
    weight = (module.up.weight.float() @ module.weight.float()).to(module.weight.dtype)
    out, into = weight.shape
    layer: nn.Module
    if kind is nn.Linear:
        layer = nn.Linear(into, out, bias=module.up.bias is not None)
    else:
        layer, weight = kind(out, into), weight.T.contiguous()
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if module.up.bias is not None:
        layer.bias = nn.Parameter(module.up.bias.detach(), requires_grad=False)
    return layer


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
