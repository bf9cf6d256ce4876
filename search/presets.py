"""Published experiments by name: the LASER paper's results, and those of posts and a project.

A preset says what was asked of which model, what was cut and what came of it, so that one word
repeats it: as a search (`init`), as a score (`evaluate`), as a model (`cut`).
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from typing import Any

from search.paper import CELLS, COMPOSITION, MODELS, Cell
from tasks.errors import InputError

_PAPER_RHO = (0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05, 0.01, 0.005)
_MOST_NAMES = 3


@dataclass(frozen=True)
class Preset:
    """A published experiment.

    `model`: a hub id; None where it is of no particular one. `scoring`, `protocol`: as in
    study.yaml. `interventions`: what was cut, as `--intervention` takes it; empty where it was not
    published. `before`, `after`: the metric in per cent, as it was published; None where it was
    not. `published`: what came of it, in words. `matrices`, `rho`, `cuts`, `strategy`, `trials`:
    the space and the search that find it.
    """

    name: str
    about: str
    model: str | None
    head: str
    dtype: str
    task: str
    scoring: str
    protocol: str
    interventions: tuple[str, ...]
    metric: str
    before: float | None
    after: float | None
    published: str
    matrices: tuple[str, ...]
    rho: tuple[float, ...]
    cuts: int
    strategy: str
    trials: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def checked_model(self, given: str | None) -> str:
        """The model: the one that is `given`, else its own. Raises InputError if there is none."""
        if (found := given or self.model) is None:
            raise InputError(
                f"preset {self.name!r} is not tied to one model; give one ({self.about})"
            )
        return found

    def checked_interventions(self) -> tuple[str, ...]:
        """What was cut. Raises InputError if that was not published."""
        if not self.interventions:
            raise InputError(
                f"preset {self.name!r} does not say which matrices were cut, because that was not "
                f"published; search it with laser-search init --preset {self.name}"
            )
        return self.interventions


def _of_cell(cell: Cell) -> Preset:
    model = MODELS[cell.model]
    return Preset(
        name=f"{cell.model}-{cell.task.replace(':', '-')}",
        about=f"LASER paper, table 1: {model.title} on {cell.task}",
        model=model.path,
        head=model.head,
        dtype=model.dtype,
        task=cell.asked,
        scoring="paper",
        protocol="paper",
        interventions=(f"{cell.layer}.{cell.type}={cell.rho:g}",),
        metric="accuracy",
        before=cell.before,
        after=cell.after,
        published=f"{cell.before:.1f} to {cell.after:.1f} %",
        matrices=("fc_in", "fc_out"),
        rho=_PAPER_RHO,
        cuts=1,
        strategy="grid",
        trials=model.layers * 2 * len(_PAPER_RHO),
    )


def _composition() -> Preset:
    """GPT-J on CounterFact with several cuts, whose matrices the paper does not name."""
    gptj, before, after = MODELS["gptj"], COMPOSITION["before"], COMPOSITION["composed"]
    return Preset(
        name="gptj-counterfact-composition",
        about="LASER paper, section 5.1: GPT-J-6B on counterfact, several cuts, chosen greedily",
        model=gptj.path,
        head=gptj.head,
        dtype=gptj.dtype,
        task="counterfact",
        scoring="paper",
        protocol="paper",
        interventions=(),
        metric="accuracy",
        before=before,
        after=after,
        published=f"{before:.1f} to {after:.1f} %",
        matrices=("fc_in", "fc_out"),
        rho=_PAPER_RHO,
        cuts=gptj.layers * 2,
        strategy="greedy",
        trials=gptj.layers * 2 * len(_PAPER_RHO),
    )


_SEEDS = (
    Preset(
        name="bert-large-sst2",
        about="a post: a BERT-large trained on SST-2, each layer's fc_in at three fractions",
        model=None,
        head="classifier",
        dtype="auto",
        task="sst2",
        scoring="default",
        protocol="auto",
        interventions=(),
        metric="accuracy",
        before=92.89,
        after=93.23,
        published="92.89 to 93.23 %, one cut in layer 1",
        matrices=("fc_in",),
        rho=(0.1, 0.05, 0.01),
        cuts=1,
        strategy="grid",
        trials=72,
    ),
    Preset(
        name="flan-t5-samsum",
        about="a post: Flan-T5-base on SAMSum, q, k and v at rank 384 of 768",
        model="google/flan-t5-base",
        head="seq2seq",
        dtype="auto",
        task="samsum",
        scoring="default",
        protocol="auto",
        interventions=tuple(
            f"*.{cross}{kind}_proj=rank:384" for cross in ("", "cross.") for kind in "qkv"
        ),
        metric="rougeL",
        before=None,
        after=None,
        published="247.6 M to 183.9 M parameters, thin layers not counted; ROUGE almost unchanged",
        matrices=("q_proj", "k_proj", "v_proj"),
        rho=(0.5,),
        cuts=3,
        strategy="auto",
        trials=200,
    ),
    Preset(
        name="laser-rmt",
        about="laserRMT: the 15 matrices of lowest signal-to-noise ratio, cut to their signal, "
        "kept if perplexity does not rise; for any causal model",
        model=None,
        head="causal",
        dtype="auto",
        task="perplexity:wikitext2",
        scoring="default",
        protocol="auto",
        interventions=(),
        metric="perplexity",
        before=None,
        after=None,
        published="no figure of one model",
        matrices=("all",),
        rho=_PAPER_RHO,
        cuts=15,
        strategy="snr",
        trials=15,
    ),
)

PRESETS: tuple[Preset, ...] = (*map(_of_cell, CELLS), _composition(), *_SEEDS)
"""The paper's 24 results task by task, its composition, and what else people come from."""


def get_preset(name: str) -> Preset:
    """The preset called `name`. Raises InputError that names the nearest ones."""
    names = [preset.name for preset in PRESETS]
    if name not in names:
        close = difflib.get_close_matches(name, names, n=_MOST_NAMES, cutoff=0.3)
        hint = f"did you mean {', '.join(close)}?" if close else "no name is like it;"
        raise InputError(
            f"preset {name!r} does not exist; {hint} laser-search presets lists all of them"
        )
    return PRESETS[names.index(name)]
