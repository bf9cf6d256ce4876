"""The LASER paper's table of results, as data: models, tasks, interventions, accuracies.

Source: Sharma, Ash and Misra, ICLR 2024, table 1 and section 5.1 (arXiv 2312.13558). Accuracies in
per cent on the last 80 % of each data set, whose first 20 % chose the intervention.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from tasks.errors import InputError, nearest


@dataclass(frozen=True)
class PaperModel:
    """A model of the paper: its name there, where it is, in which type its code loads it."""

    title: str
    path: str
    dtype: str
    head: str
    layers: int


@dataclass(frozen=True)
class Cell:
    """One cell of the table: a model's accuracy on a task, before and after its best intervention.

    `task` is ours by name. `type`, `layer`, `rho`: the matrix and the fraction of rank kept. `n`:
    examples in all. `before`, `after`: per cent.
    """

    model: str
    task: str
    n: int
    type: str
    layer: int
    rho: float
    before: float
    after: float

    @property
    def rate(self) -> float:
        """LASER's ``--rate``, 10 (1 - rho)."""
        return round(10 * (1 - self.rho), 6)

    @property
    def asked(self) -> str:
        """The task as this model is asked: Llama's answers are looked for in generated text."""
        generated = (self.model, self.task) == ("llama2", "counterfact")
        return "counterfact:generated" if generated else self.task


MODELS = MappingProxyType(
    {
        "roberta": PaperModel("RoBERTa-base", "FacebookAI/roberta-base", "float32", "masked", 12),
        "gptj": PaperModel("GPT-J-6B", "EleutherAI/gpt-j-6b", "float16", "causal", 28),
        "llama2": PaperModel("Llama2-7B", "meta-llama/Llama-2-7b-hf", "float32", "causal", 32),
    }
)

SIZES = MappingProxyType(
    {
        "counterfact": 65757,
        "hotpotqa": 14618,
        "fever": 13086,
        "bios-gender": 39642,
        "bios-profession": 19223,
        "truthfulqa": 5882,
        "bigbench:epistemic-reasoning": 2000,
        "bigbench:qa-wikidata": 20321,
    }
)
"""Examples of each task."""

_TABLE = """
counterfact       roberta 17.3 19.3 fc_in   8 .8
counterfact       gptj    13.1 24.0 fc_in  27 .01
counterfact       llama2  35.6 37.6 fc_in  28 .05
hotpotqa          roberta  6.1  6.7 fc_out  2 .4
hotpotqa          gptj    19.6 19.5 fc_in  27 .1
hotpotqa          llama2  16.5 17.2 fc_in  27 .2
fever             roberta 50.0 52.3 fc_in   3 .4
fever             gptj    50.2 56.2 fc_in  24 .01
fever             llama2  59.3 64.5 fc_in  30 .2
bios-gender       roberta 87.5 93.7 fc_in   9 .9
bios-gender       gptj    70.9 97.5 fc_in  14 .01
bios-gender       llama2  75.5 88.4 fc_in  24 .01
bios-profession   roberta 64.5 72.5 fc_in   3 .9
bios-profession   gptj    75.6 82.1 fc_in  18 .01
bios-profession   llama2  85.0 86.7 fc_out 30 .4
truthfulqa        roberta 56.2 56.2 fc_in   0 .01
truthfulqa        gptj    54.9 55.6 fc_in   7 .8
truthfulqa        llama2  50.5 56.2 fc_in  30 .05
bigbench:epistemic-reasoning roberta 37.1 41.8 fc_out 1 .4
bigbench:epistemic-reasoning gptj    37.1 38.3 fc_in 26 .01
bigbench:epistemic-reasoning llama2  44.8 63.4 fc_out 28 .01
bigbench:qa-wikidata roberta 28.0 30.7 fc_in  7 .4
bigbench:qa-wikidata gptj    51.8 65.9 fc_in 27 .01
bigbench:qa-wikidata llama2  59.5 62.0 fc_in 27 .01
"""


def _read(line: str) -> Cell:
    task, model, before, after, kind, layer, rho = line.split()
    return Cell(model, task, SIZES[task], kind, int(layer), float(rho), float(before), float(after))


CELLS = tuple(_read(line) for line in _TABLE.strip().splitlines())
"""The 24 cells, task by task."""

COMPOSITION = MappingProxyType({"before": 13.1, "single": 24.0, "composed": 29.2})
"""GPT-J on CounterFact: no cut, the best one, and the greedy composition of several."""


def cell(model: str, task: str) -> Cell:
    """The cell of a model and a task. Raises InputError."""
    for name, known in ((model, tuple(MODELS)), (task, tuple(SIZES))):
        if name not in known:
            raise InputError(
                f"{name!r} is not in the paper's table; it has {', '.join(known)}"
                + nearest(name, known)
            )
    return next(found for found in CELLS if (found.model, found.task) == (model, task))
