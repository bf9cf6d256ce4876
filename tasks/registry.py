"""Every task by its name: those built in, and those that installed packages bring."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import MappingProxyType

from tasks.base import Head, Task
from tasks.bigbench import SUBSETS, BigBench
from tasks.bios import BiosGender, BiosProfession
from tasks.counterfact import CounterFact
from tasks.counterfact_generated import CounterFactGenerated
from tasks.errors import InputError, nearest
from tasks.fever import Fever
from tasks.glue import PARTS, Glue
from tasks.hotpotqa import HotpotQA
from tasks.jsonl import Jsonl
from tasks.lm_eval import PREFIX, LmEval
from tasks.perplexity import CORPORA, Perplexity
from tasks.plugins import Plugins
from tasks.samsum import SamSum
from tasks.sst2 import Sst2
from tasks.truthfulqa import TruthfulQA

GROUP = "laser_search.tasks"
"""The entry point group in which a package names its task classes."""
MEMBERS = ("name", "metric", "heads", "load", "request", "outcome")

BUILT_IN: tuple[Task, ...] = (
    BigBench(),
    *(BigBench(subset) for subset in SUBSETS),
    BiosGender(),
    BiosProfession(),
    CounterFact(),
    CounterFactGenerated(),
    Fever(),
    *(Glue(part) for part in PARTS),
    HotpotQA(),
    Jsonl(),
    *(Perplexity(corpus) for corpus in ("", *CORPORA)),
    SamSum(),
    Sst2(),
    TruthfulQA(),
)
TASKS: Mapping[str, Task] = MappingProxyType({task.name: task for task in BUILT_IN})


def _fault(task: object) -> str:
    missing = [member for member in MEMBERS if not hasattr(task, member)]
    return f"lacks {', '.join(missing)}; it must keep tasks.base.Task" if missing else ""


_PLUGINS: Plugins[Task] = Plugins(GROUP, "task", TASKS, _fault)


def get_task(
    name: str,
    *,
    num_fewshot: int | None = None,
    limit: int | None = None,
    folder: str | None = None,
) -> Task:
    """Return the task called `name`, built in, installed, or ``lm_eval:NAME``.

    `num_fewshot` (solved examples in each prompt), `limit` (first examples of each part) and
    `folder` (of YAML tasks) are for tasks of lm-evaluation-harness, which make sense of them.
    Raises InputError with the nearest name, or when an installed one cannot be used.
    """
    if name.startswith(PREFIX):
        return LmEval(name, num_fewshot, limit, folder)
    for option, value in (("num_fewshot", num_fewshot), ("limit", limit)):
        if value is not None:
            raise InputError(
                f"{option} {value} does not apply to task {name!r}; it is for tasks of "
                f"lm-evaluation-harness, such as {PREFIX}arc_easy"
            )
    if name in TASKS:
        return TASKS[name]
    if (found := _PLUGINS.get(name)) is not None:
        return found
    known = [*TASKS, *_PLUGINS.names()]
    raise InputError(
        f"task {name!r} does not exist{nearest(name, known)}; "
        f"expected one of {', '.join(sorted(known))}"
    )


def all_tasks() -> list[Task]:
    """Every task by name. Installed ones that cannot be used are left out with a warning."""
    found = {**TASKS, f"{PREFIX}NAME": LmEval(f"{PREFIX}NAME")}
    found |= {task.name: task for task in _PLUGINS.usable()}
    return [found[name] for name in sorted(found)]


def describe(task: Task) -> str:
    """One line on a task: what it says about itself, else its docstring's first line."""
    about = getattr(task, "about", "") or (inspect.getdoc(type(task)) or "").partition("\n")[0]
    return str(about)


def check_head(task: Task, head: Head) -> None:
    """Refuse a task that `head` cannot answer, by name and before anything loads.

    Raises InputError.
    """
    if head not in task.heads:
        raise InputError(
            f"task {task.name!r} cannot be answered by a {head} head; it needs a model with a "
            f"{' or '.join(sorted(task.heads))} head"
        )
