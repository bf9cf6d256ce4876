"""A first study.yaml, with what each key is for."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.config import StudyConfig, parse_config
from search.durable import write_text
from search.sections import PAPER_RHO
from tasks.errors import InputError
from tasks.metrics import is_perplexity
from tasks.registry import get_task

TEMPLATE = """\
# A study of laser-search. Check and start it:  laser-search launch {file}
# Every key: docs/configuration.md. Relative paths are relative to this file.

model:
  path: {model}        # a folder written by save_pretrained, or a hub id
  # revision: main     # branch, tag or commit of a hub id
  # dtype: bfloat16    # by default the checkpoint's own

task:
  name: {task}         # laser-search tasks lists them; jsonl is a file of your own
  {data}

split:
  validation: {validation}   # the part that the search sees; the rest is scored once, at the end
  seed: 0

space:
  layers: all          # or numbers and ranges: [0, 20-27]
  matrices: {matrices}
  {cut}

search:
  strategy: auto       # docs/strategies.md: grid, greedy, snr, screened, random, tpe, ...
  trials: {trials}     # evaluations; nothing is evaluated twice
  seed: 0

{guard}

factors: {factors}     # SVDs that all studies share: a folder, or a URL such as s3://bucket/prefix

# storage: postgresql://user@host/database   # by default a file in the study folder
# cluster:
#   address: auto      # join a running Ray cluster; by default a local one is started
#   max_concurrent: 2  # workers
"""

LEVELS = """\
rho: {rho}           # fractions of the rank that are kept
  max_interventions: {cuts}   # matrices cut at once
  # budget: {{kept: 0.45, kind: whitened}}   # instead: a whole model (docs/budget.md)"""

OWN = "jsonl"
"""The task of a user's own questions, whatever the model."""

LIMIT = 0.01
"""How much the perplexity of general text may rise, unless somebody says otherwise."""

UNLIMITED = """\
# guard:               # what the winner costs on general text; for causal models
#   data: wikitext2    # or a text file of your own; by default the prompts of the questions
#   worse_by: 0.01     # what raises the perplexity by more than 1 % cannot win"""

LIMITED = """\
guard:                 # what a composition costs on general text; without this line and the next
  worse_by: {worse_by}     # no limit: by how much the perplexity may rise, as a share
  # data: wikitext2    # better than the prompts of the questions, the default; or a text file
  # sample_tokens: 1024   # on which every trial is judged"""

WITHIN = """\
budget:
    kept: {kept}         # the share of these matrices' parameters that is stored, or a list
    kind: [keep-top, whitened]   # plain cuts, or those that spare real inputs (docs/budget.md)"""
"""How much may be cut: single matrices to levels, or all within a budget."""


def check_model(path: str) -> None:
    """Raise InputError where `path` can only be a folder and is none; a hub id is not looked up."""
    local = Path(path).expanduser()
    if local.is_dir() or not (local.is_absolute() or path.startswith((".", "~")) or not path):
        return
    raise InputError(f"{path!r} is not a folder; give one written by save_pretrained, or a hub id")


def check_task(name: str) -> None:
    """Raise InputError if there is no such task; one of lm-evaluation-harness is not looked up."""
    if not name.startswith("lm_eval:"):
        get_task(name)


def usual_limit(model: str, task: str, kept: float | None = None) -> float | None:
    """The limit on general text of a study of which nothing was said; None where there is none.

    A model without a perplexity, a task that is one, and a budget, which costs what it saves, have
    none. A hub id is not looked up: it is a language model, unless the task is a classifier's.
    """
    if kept is not None:
        return None
    is_of_classifiers = False
    if not task.startswith("lm_eval:"):
        asked = get_task(task)
        is_of_classifiers = "classifier" in asked.heads and task != OWN
        if "causal" not in asked.heads or is_perplexity(asked.metric):
            return None
    if Path(model).expanduser().is_dir():
        from search.model import ModelSource  # which loads much, and is seldom needed here

        try:
            head: str = ModelSource(model).head
        except InputError:  # launch says what is wrong with the folder
            return None
        return LIMIT if head == "causal" else None
    return None if is_of_classifiers else LIMIT


@dataclass(frozen=True)
class Answers:
    """What `laser-search init` asks for.

    `kept`: a budget, in place of `cuts`. `worse_by`: how much the perplexity of general text may
    rise, as a share.
    """

    model: str
    task: str = OWN
    data: str | None = None
    validation: float = 0.2
    matrices: Sequence[str] = ("fc_in", "fc_out")
    cuts: int = 3
    kept: float | None = None
    trials: int = 200
    factors: str = "./factors"
    worse_by: float | None = None


def study_text(answers: Answers, file: str) -> str:
    """The file's text. Raises InputError on answers that no study could have."""
    data = "# data: ./my.jsonl   # by default the task's own data"
    if answers.data is not None:
        data = f"data: {_yaml(answers.data)}   # a local file or hub id"
    text = TEMPLATE.format(
        file=" ".join(file.split()),
        model=_yaml(answers.model),
        task=_yaml(answers.task),
        data=data,
        validation=_yaml(answers.validation),
        matrices=_yaml(list(answers.matrices)),
        cut=(LEVELS if answers.kept is None else WITHIN).format(
            rho=_yaml(list(PAPER_RHO)), cuts=answers.cuts, kept=answers.kept
        ),
        trials=answers.trials,
        factors=_yaml(answers.factors),
        guard=(UNLIMITED if answers.worse_by is None else LIMITED).format(
            worse_by=_yaml(answers.worse_by)
        ),
    )
    check_study(text, file)
    return text


def write_study(answers: Answers, path: Path, *, replace: bool = False) -> None:
    """Durably write a study.yaml that `laser-search launch` accepts.

    Raises InputError if the answers are wrong, or the file exists and `replace` is False.
    """
    put_study(lambda: study_text(answers, path.name), path, replace=replace)


def put_study(make: Callable[[], str], path: Path, *, replace: bool) -> None:
    """Durably write what `make` says to `path`; see `write_study`."""
    if path.exists() and not replace:
        raise InputError(f"{path} exists; give another file, or add --replace")
    text = make()
    try:
        write_text(path, text)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}); give another file"
        ) from None


def check_study(text: str, where: str) -> StudyConfig:
    """The configuration that `text` is. Raises InputError if it is none."""
    import yaml

    from tasks.registry import get_task

    config = parse_config(yaml.safe_load(text), where)
    for goal in config.goals.values():
        get_task(goal.name, folder=goal.data)
    return config


def _yaml(value: Any) -> str:
    """A value as one line of YAML: JSON is."""
    return json.dumps(value, ensure_ascii=False)
