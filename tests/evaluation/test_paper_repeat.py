"""benchmarks/paper/repeat.py on small local models, against the plain loop and cuts by hand."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

import search.paper
from search.paper import CELLS, MODELS, SIZES, cell
from tasks.errors import InputError
from tasks.registry import get_task

HERE = Path(__file__)
SCRIPT = HERE.parents[2] / "benchmarks" / "paper" / "repeat.py"


def _module(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    found = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


loop = _module("paper_loop", HERE.with_name("paper_loop.py"))


@pytest.fixture(scope="module")
def repeat():
    if not SCRIPT.is_file():
        pytest.skip("benchmarks are not shipped with the wheel")
    return _module("paper_repeat", SCRIPT)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Small models of the paper's three kinds, saved; and what the loop needs."""
    found = {}
    for name, family in (("roberta", "roberta"), ("gptj", "gptj"), ("llama2", "llama")):
        folder = tmp_path_factory.mktemp(name)
        model, tokenizer = loop.build(family)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        found[name] = (str(folder), family, model, tokenizer)
    return found


FC_IN = {"roberta": "roberta.encoder.layer.{}.intermediate.dense.weight",
         "gptj": "transformer.h.{}.mlp.fc_in.weight",
         "llama2": "model.layers.{}.mlp.gate_proj.weight"}  # fmt: skip
FC_OUT = {"gptj": "transformer.h.{}.mlp.fc_out.weight"}


def truncated(weight, rho, way, iterations):
    rank = max(1, int(min(weight.shape) * rho + 1e-9))
    if way == "exact":
        U, S, Vh = torch.linalg.svd(weight.double(), full_matrices=False)
        return ((U[:, :rank] * S[:rank]) @ Vh[:rank]).float()
    torch.manual_seed(0)
    U, S, V = torch.svd_lowrank(weight.float(), q=rank, niter=iterations)
    return U @ torch.diag(S) @ V.T


class Edited:
    """A model whose parameters are cut by hand, for the while."""

    def __init__(self, model, cuts, way="exact", iterations=2):
        self.model, self.cuts, self.way, self.iterations = model, cuts, way, iterations

    def __enter__(self):
        self.before = {name: self.model.get_parameter(name).detach().clone() for name in self.cuts}
        with torch.no_grad():
            for name, rho in self.cuts.items():
                cut = truncated(self.before[name], rho, self.way, self.iterations)
                self.model.get_parameter(name).copy_(cut)

    def __exit__(self, *_):
        with torch.no_grad():
            for name, value in self.before.items():
                self.model.get_parameter(name).copy_(value)


def numbered(task, count=20):
    """Rows as in the loop's own tests, told apart by a number."""
    field = {"fever": "claim", "bios-gender": "hard_text", "hotpotqa": "question",
             "counterfact": "prompt", "bigbench:epistemic-reasoning": "inputs"}[task]  # fmt: skip
    rows = loop.ROWS[task]
    return [{**rows[n % len(rows)], field: f"{n} {rows[n % len(rows)][field]}"}
            for n in range(count)]  # fmt: skip


def accuracy(verdicts):
    return 100 * sum(verdict.right for verdict in verdicts) / len(verdicts)


def log_loss(verdicts):
    return -sum(verdict.log_probability for verdict in verdicts) / len(verdicts)


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("roberta", "fever"),
        ("roberta", "bigbench:epistemic-reasoning"),
        ("gptj", "bios-gender"),
        ("llama2", "counterfact"),
        ("llama2", "hotpotqa"),
    ],
)
def test_before_and_after_are_the_loops(repeat, folders, tmp_path, capsys, rounding, name, task):
    folder, family, model, tokenizer = folders[name]
    rows = numbered(task)
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in rows))
    code = repeat.main([name, task, "--path", folder, "--data", str(data), "--tokenizer", folder,
                        "--dtype", "float32", "--intervention", "1.fc_in=0.1", "--json",
                        "--factors", str(tmp_path / "f")])  # fmt: skip
    captured = capsys.readouterr()
    assert code == 0, captured.err
    found = {row["way"]: row for row in json.loads(captured.out)}
    assert set(found) == {"exact", "svd-lowrank"}
    plain = loop.Loop(family, model, tokenizer)
    asked = [row for row in rows if task != "hotpotqa" or plain.run(task, [row])]
    test = asked[int(0.2 * len(asked)) :]
    exact = loop.Loop(family, rounding.exact(model), tokenizer)
    before = [one.run(task, test) for one in (plain, exact)]
    parameter = FC_IN[name].format(1)
    for way, row in found.items():
        assert row["n"] == len(test)
        assert row["published"] == [cell(name, task).before, cell(name, task).after]
        with Edited(model, {parameter: 0.1}, way, 20 if name == "roberta" else 2):
            twin = loop.Loop(family, rounding.exact(model), tokenizer)
            after = [one.run(task, test) for one in (plain, twin)]
        assert row["found"] == pytest.approx([accuracy(before[1]), accuracy(after[1])])
        sides = zip(before, after, strict=True)
        rounding.check(row["log_loss"], *([log_loss(v) for v in side] for side in sides))
        for value, (low, high) in zip(row["found"], row["intervals"], strict=True):
            assert low <= value + 1e-9 and value <= high + 1e-9
        low, high = row["difference_interval"]
        assert low <= row["difference"] <= high


def by_hand(plain, model, rows, rhos):
    """The paper's composition, written out: last layer first, the smallest fraction first."""

    def merit(cuts):
        with Edited(model, cuts):
            verdicts = plain.run("counterfact", rows)
        total = sum(verdict.log_probability for verdict in verdicts)
        return accuracy(verdicts), total / len(verdicts)

    kept, best = {}, merit({})
    for layer in (1, 0):
        for names in (FC_IN, FC_OUT):
            for rho in sorted(rhos):
                cuts = {**kept, names["gptj"].format(layer): rho}
                if (found := merit(cuts)) > best:
                    kept, best = cuts, found
                    break
    return kept


def test_the_composition_is_searched_as_the_paper_says(repeat, folders, tmp_path, capsys):
    folder, family, model, tokenizer = folders["gptj"]
    rows = numbered("counterfact", 40)
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in rows))
    code = repeat.main(["gptj", "counterfact", "--composition", "--path", folder, "--data",
                        str(data), "--dtype", "float32", "--way", "exact", "--json", "--rho", "0.1",
                        "0.5", "--factors", str(tmp_path / "f")])  # fmt: skip
    captured = capsys.readouterr()
    assert code == 0, captured.err
    (row,) = json.loads(captured.out)
    assert row["published"] == [13.1, 29.2]
    plain = loop.Loop(family, model, tokenizer)
    kept = by_hand(plain, model, rows[:8], (0.1, 0.5))
    assert len(kept) > 0, "a composition of nothing would show little"
    names = {FC_IN["gptj"].format(n): f"{n}.fc_in" for n in (0, 1)}
    names |= {FC_OUT["gptj"].format(n): f"{n}.fc_out" for n in (0, 1)}
    assert set(row["intervention"].split()) == {f"{names[k]}={rho}" for k, rho in kept.items()}
    with Edited(model, kept):
        assert row["found"][1] == pytest.approx(accuracy(plain.run("counterfact", rows[8:])))


def test_the_table_is_printed_and_what_is_not_in_it_refused(repeat, capsys):
    assert repeat.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 24
    assert "gptj     fever                         24.fc_in=0.01    50.2  56.2" in lines
    assert repeat.main(["gptj", "fevre"]) == 2
    assert "did you mean 'fever'" in capsys.readouterr().err
    row = {"model": "gptj", "task": "fever", "way": "exact", "intervention": "24.fc_in=0.01",
           "n": 1000, "published": [50.2, 56.2], "found": [50.0, 56.0],
           "intervals": [[47.0, 53.0], [52.9, 59.1]], "difference": 6.0,
           "difference_interval": [4.0, 8.0]}  # fmt: skip
    assert repeat.table([row]).splitlines()[-1] == (
        "| gptj | fever | 24.fc_in=0.01 | 1,000 | exact | 50.0 (47.0 to 53.0) | "
        "56.0 (52.9 to 59.1) | +6.0 (+4.0 to +8.0) |"
    )


def test_the_papers_table_is_whole():
    assert len(CELLS) == len({(c.model, c.task) for c in CELLS}) == len(MODELS) * len(SIZES) == 24
    for one in CELLS:
        task = get_task(one.asked)
        assert MODELS[one.model].head in task.heads
        assert one.n == SIZES[one.task]
        assert round(1 - one.rate / 10, 6) == one.rho
        assert one.layer < {"roberta": 12, "gptj": 28, "llama2": 32}[one.model]
    assert sum(c.after > c.before for c in CELLS) == 22  # one the same, one lower
    assert cell("gptj", "counterfact").after == search.paper.COMPOSITION["single"]
    assert cell("llama2", "counterfact").asked == "counterfact:generated"
    with pytest.raises(InputError, match="did you mean 'gptj'"):
        cell("gpt-j", "fever")
