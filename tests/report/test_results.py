"""The Python API on a real study of the demo, and the notebook that shows it."""

import ast
import json
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from search.results import Study
from tasks.errors import InputError

NOTEBOOK = Path(__file__).parents[2] / "docs" / "results.ipynb"


def _cells(kind):
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


def test_every_cell_of_the_notebook_runs(demo_study, monkeypatch):
    """In one namespace, in order, in the folder that holds the demo's study, as a kernel does."""
    monkeypatch.chdir(demo_study.folder.parent)
    names, shown = {}, []
    for source in _cells("code"):
        tree = ast.parse(source)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, str(NOTEBOOK), "exec"), names)
        if last is not None:
            shown.append(eval(compile(ast.Expression(last.value), str(NOTEBOOK), "eval"), names))
    figures = [value for value in shown if isinstance(value, Figure)]
    assert len(figures) == 4
    assert len(names["fixed"]) > 50
    assert set(names["table"].column_names) == set(names["trials"].columns)
    best = shown[1]["score"].iloc[0]
    assert best == demo_study.summary.best.score > demo_study.summary.baseline.score


def test_frames_agree_with_the_outcome_files(demo_study):
    study = Study.open(demo_study.folder)
    trials = study.trials_frame().set_index("trial")
    for number in (study.best.number, 0):
        outcomes = study.outcomes_frame(f"trial-{number:05d}")
        assert outcomes["score"].mean() == pytest.approx(trials.loc[number, "score"])
        assert -outcomes["log_probability"].mean() == pytest.approx(trials.loc[number, "log_loss"])
    assert str(study.composition) == study.best.text
    assert study.verdict.comparisons["test"].n == 1152
    pd.testing.assert_frame_equal(study.reload().trials_frame(), study.trials_frame())


def test_what_is_not_there_is_one_sentence(make_study, tmp_path):
    with pytest.raises(InputError, match="contains no study"):
        Study.open(tmp_path)
    empty = Study(make_study(tmp_path / "s", limit=0))
    assert empty.trials_frame().empty and empty.verdict is None
    with pytest.raises(InputError, match="no trial that this figure"):
        empty.heat_map()
    with pytest.raises(InputError, match="no outcomes of 'trial-00009'"):
        empty.outcomes_frame("trial-00009")
