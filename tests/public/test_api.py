"""`import laser_search`: a study from Python, and what is done with it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import datasets
import pandas as pd
import pytest
import torch
from rich.text import Text
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import laser_search
import search.demo
from laser_search.given_questions import questions_path
from laser_search.progress import CellReporter
from search.config import read_config
from tasks.errors import InputError

DEMO = Path(search.demo.__file__).parent
ROWS = [json.loads(line) for line in (DEMO / "questions.jsonl").read_text().splitlines()[:240]]


@pytest.fixture(scope="module")
def loaded():
    """The demo's model and tokenizer, loaded."""
    model = AutoModelForCausalLM.from_pretrained(DEMO / "model")
    return model, AutoTokenizer.from_pretrained(DEMO / "model")


@pytest.fixture(scope="module")
def found(loaded, tmp_path_factory):
    """A study of a loaded model and a list of questions, and its folder."""
    model, tokenizer = loaded
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folder = tmp_path_factory.mktemp("api") / "study"
    study = laser_search.search(
        model,
        ROWS,
        tokenizer=tokenizer,
        folder=folder,
        trials=5,
        strategy="grid",
        validation=0.5,
        settings={"space": {"rho": [0.1, 0.01], "layers": [0, 2]}},
        progress=False,
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return study, folder


def test_importing_it_imports_nothing_heavy():
    code = (
        "import sys, laser_search; assert 'search' in dir(laser_search)\n"
        "heavy = ('torch', 'transformers', 'ray', 'pandas', 'optuna')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    with pytest.raises(AttributeError, match="has no attribute 'serach'"):
        laser_search.serach  # noqa: B018


def test_a_study_of_a_loaded_model_has_a_verdict(found):
    study, folder = found
    assert isinstance(study, laser_search.Study)
    assert study.summary.finished == 5
    assert study.verdict.scores["baseline"]["test"].n + len(study.summary.baseline.outcomes) == 240
    assert len(study.trials_frame()) == 5
    assert {row["matrix"].split(".")[0] for _, row in study.interventions_frame().iterrows()} <= {
        "0",
        "2",
    }
    saved = load_file(folder / "model" / "model.safetensors")
    original = load_file(DEMO / "model" / "model.safetensors")
    assert saved.keys() == original.keys()
    assert all(torch.equal(saved[name], original[name]) for name in saved)


def test_the_same_call_continues_and_evaluates_nothing_twice(found, loaded, monkeypatch):
    study, folder = found
    model, tokenizer = loaded
    call = dict(
        tokenizer=tokenizer,
        folder=folder,
        trials=5,
        strategy="grid",
        validation=0.5,
        settings={"space": {"rho": [0.1, 0.01], "layers": [0, 2]}},
        progress=False,
    )
    result = (folder / "result.json").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr("search.here.open_evaluator", None)  # a finished study loads no model
        again = laser_search.search(model, ROWS, **call)
    assert again.best.number == study.best.number
    assert (folder / "result.json").read_bytes() == result
    longer = laser_search.search(model, ROWS, **{**call, "trials": 6})
    assert longer.summary.finished == 6
    kept = longer.trials_frame().head(5)
    pd.testing.assert_frame_equal(kept, study.trials_frame(), check_dtype=False)
    with pytest.raises(InputError, match="contains different questions"):
        laser_search.search(model, ROWS[:-1], **call)
    with pytest.raises(InputError, match="a different model"):
        other = AutoModelForCausalLM.from_pretrained(DEMO / "model")
        with torch.no_grad():
            next(other.parameters()).mul_(2)
        laser_search.search(other, ROWS, **call)


def test_an_interrupted_search_goes_on_where_it_was(tmp_path, monkeypatch):
    from search import here

    real, calls = here.run_job, []

    def interrupted(study, evaluator, job):
        calls.append(job)
        if len(calls) == 4:
            raise KeyboardInterrupt
        real(study, evaluator, job)

    call = dict(folder=tmp_path / "s", trials=4, strategy="grid", progress=False)
    with monkeypatch.context() as patched:
        patched.setattr(here, "run_job", interrupted)
        with pytest.raises(KeyboardInterrupt):
            laser_search.search(DEMO / "model", ROWS[:60], **call)
    stopped = laser_search.Study.open(tmp_path / "s")
    assert stopped.verdict is None
    assert stopped.summary.finished == 2
    study = laser_search.search(DEMO / "model", ROWS[:60], **call)
    assert study.summary.finished == 4
    assert study.verdict is not None
    whole = laser_search.search(DEMO / "model", ROWS[:60], **{**call, "folder": tmp_path / "whole"})
    assert [t.effect for t in study.record.trials] == [t.effect for t in whole.record.trials]
    assert [t.score for t in study.record.trials] == [t.score for t in whole.record.trials]


def test_lists_frames_datasets_and_files_are_the_same_questions(tmp_path):
    rows = [
        {"prompt": "a", "answer": "b", "choices": ["b", "c"], "group": "1"},
        {"prompt": "d <&> é", "answer": "e", "choices": ["e", "f"], "group": None},
    ]
    frame, dataset = pd.DataFrame(rows), datasets.Dataset.from_list(rows)
    for number, given in enumerate((rows, frame, dataset, iter(rows))):
        path = questions_path(given, tmp_path / str(number))
        read = [json.loads(line) for line in Path(path).read_text().splitlines()]
        assert read == rows
    file = tmp_path / "own.jsonl"
    file.write_text("")
    assert questions_path(file, tmp_path) == str(file)
    assert questions_path("owner/data", tmp_path) == "owner/data"
    assert questions_path(None, tmp_path) is None
    gaps = pd.DataFrame({"prompt": ["a", "b"], "answer": ["c", "d"], "group": [1.0, float("nan")]})
    gaps["label"] = pd.array([1, None], dtype="Int64")
    lines = Path(questions_path(gaps, tmp_path / "gaps")).read_text().splitlines()
    assert [json.loads(line)["group"] for line in lines] == [1.0, None]
    assert [json.loads(line)["label"] for line in lines] == [1, None]


@pytest.mark.parametrize(
    ("questions", "expected"),
    [
        ([], "questions is empty"),
        ({"prompt": "a"}, "questions is a dict; give a list of dicts"),
        (7, "questions is a int"),
        (["a"], "question 1 is a str, expected a dict"),
        ([{"prompt": object()}], "question 1, prompt is a object"),
    ],
)
def test_questions_that_are_none(tmp_path, questions, expected):
    with pytest.raises(InputError, match=expected):
        questions_path(questions, tmp_path)


def test_bad_input_is_one_sentence_before_anything_is_written(loaded, tmp_path):
    model, tokenizer = loaded
    call = dict(folder=tmp_path / "s", progress=False)
    with pytest.raises(InputError, match="also needs its tokenizer"):
        laser_search.search(model, ROWS, **call)
    with pytest.raises(InputError, match="its own tokenizer"):
        laser_search.search(DEMO / "model", ROWS, tokenizer=tokenizer, **call)
    with pytest.raises(InputError, match="model is a int"):
        laser_search.search(7, ROWS, tokenizer=tokenizer, **call)
    assert not (tmp_path / "s").exists()
    with pytest.raises(InputError, match=r"laser_search.search: search.trials is 0"):
        laser_search.search(DEMO / "model", ROWS, **call, trials=0)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "study.yaml").write_text("a: 1\n")
    with pytest.raises(InputError, match=r"holds study\.yaml"):
        laser_search.search(DEMO / "model", ROWS, folder=mine)
    assert [path.name for path in mine.iterdir()] == ["study.yaml"]


def test_evaluate_scores_both_and_shows_itself(loaded, found):
    study, _ = found
    model, tokenizer = loaded
    result = laser_search.evaluate(model, ROWS[:40], ["2.fc_in=0.05"], tokenizer=tokenizer)
    assert list(result.scores) == ["baseline", "2.fc_in=0.05"]
    assert result.comparison.n == 40
    assert "2.fc_in=0.05" in result._repr_html_()
    by_path = laser_search.evaluate(DEMO / "model", ROWS[:40], "2.fc_in=0.05")
    assert by_path.scores["2.fc_in=0.05"].score == result.scores["2.fc_in=0.05"].score
    cut = laser_search.evaluate(DEMO / "model", ROWS[:40], study)
    assert list(cut.scores)[1] == str(study.composition)


def test_cut_and_export_write_models(loaded, found, tmp_path):
    study, folder = found
    model, tokenizer = loaded
    done = laser_search.cut(
        model, ["2.fc_in=0.05"], tmp_path / "cut", tokenizer=tokenizer, verify=False
    )
    assert str(done.composition) == "2.fc_in=0.05"
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "cut")
    number = study.best.number
    verdict = laser_search.export(
        folder, tmp_path / "out", format="recipe", trial=number, verify=False, anyway=True
    )
    assert verdict is None
    recipe = json.loads((tmp_path / "out" / "recipe.json").read_text())
    assert [row["matrix"] for row in recipe["composition"]["interventions"]] == [
        str(one.matrix) for one in study.best.composition.interventions
    ]
    card = (tmp_path / "cut" / "README.md").read_text()
    assert str(tmp_path) not in card and "/tmp" not in card


def test_progress_is_lines_where_there_is_no_terminal(tmp_path, capsys):
    laser_search.search(DEMO / "model", ROWS[:60], folder=tmp_path / "s", trials=2)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "questions: validation" in printed.err.splitlines()[0]
    assert "trials: 2/2" in printed.err.splitlines()[-1]


def test_a_cell_shows_notes_and_the_phase_and_keeps_the_notes():
    class Cell:
        def update(self, shown, raw):
            self.html, self.plain = shown["text/html"], shown["text/plain"]

    cell = Cell()
    with CellReporter(cell) as reporter:
        reporter.note("few <questions>")
        reporter.enter("factors", 6)
        reporter.advance(3)
        reporter.below = Text("the best so far")
        reporter._shown_at = -float("inf")
        reporter.tick()
        assert cell.plain == "factors 3/6"
        for said in ("few &lt;questions&gt;", "factors 3/6", "the best so far"):
            assert said in cell.html
    assert "few &lt;questions&gt;" in cell.html
    assert "factors" not in cell.html and "the best" not in cell.html


def test_the_examples_of_the_docs_run(loaded, tmp_path, monkeypatch):
    page = Path(__file__).parents[2] / "docs" / "python.md"
    if not page.is_file():
        pytest.skip("documents are not shipped with the wheel")
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    names = {"rows": ROWS, "model": loaded[0], "tokenizer": loaded[1]}
    names["dataset"] = datasets.Dataset.from_list(ROWS)
    for block in blocks:
        code = block.replace('"openai-community/gpt2"', repr(str(DEMO / "model")))
        code = code.replace("# ... some hundreds of them", "*rows,").replace("bfloat16", "float32")
        code = code.replace("trials=50", "trials=2").replace('folder="', 'trials=2, folder="')
        exec(compile(code, str(page), "exec"), names)
    assert names["study"].summary.finished == 2
    assert {path.name for path in tmp_path.iterdir()} == {"laser-study", "my-study", "coarse"}


def test_a_relative_cache_is_found_again_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    laser_search.search(
        DEMO / "model", ROWS[:60], folder="s", trials=1, factors="cache", progress=False
    )
    frozen = read_config(tmp_path / "s" / "study.yaml")
    assert frozen.factors == str(tmp_path / "cache")
    assert list((tmp_path / "cache").glob("??/*.safetensors"))
