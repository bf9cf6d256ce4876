"""A study, a verdict and a figure display themselves; the notebook of the docs does so for real."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from search.report.style import Picture
from search.results import Study

NOTEBOOK = Path(__file__).parents[2] / "docs" / "results.ipynb"
PNG = b"\x89PNG\r\n"


def outputs(notebook):
    """Every output of every cell of code, as data by media type."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    found = [(cell, output) for cell in cells for output in cell["outputs"]]
    assert all(output["output_type"] != "error" for _, output in found)
    return [(cell, output.get("data", {})) for cell, output in found]


def check_shown(notebook):
    """Tables, sentences and pictures, and no bare repr of a figure."""
    shown = outputs(notebook)
    text = json.dumps([data for _, data in shown])
    assert "<Figure size" not in text
    pictures = [data["image/png"] for _, data in shown if "image/png" in data]
    assert len(pictures) == 4
    for picture in pictures:
        decoded = base64.b64decode(picture)
        assert decoded.startswith(PNG) and len(decoded) > 5000
    pages = ["".join(data["text/html"]) for _, data in shown if "text/html" in data]
    assert any("<table" in page for page in pages), "frames of pandas"
    assert "trials: " in pages[0], "the study, by its first cell"
    assert "95 % interval" in pages[-1], "the verdict, by its last"
    assert all(len(json.dumps(data)) < 120_000 for _, data in shown)


def test_the_notebook_is_stored_with_what_it_shows():
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    check_shown(notebook)
    assert NOTEBOOK.stat().st_size < 400_000
    stored = NOTEBOOK.read_text(encoding="utf-8")
    assert "/tmp" not in stored and "site-packages" not in stored


def test_a_fresh_kernel_shows_the_same(demo_study):
    nbformat = pytest.importorskip("nbformat")
    client = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    place = {"metadata": {"path": str(demo_study.folder.parent)}}
    client.NotebookClient(notebook, timeout=550, resources=place).execute()
    check_shown(notebook)


def test_a_study_and_its_verdict_show_themselves(demo_study):
    study = Study.open(demo_study.folder)
    html = study._repr_html_()
    assert "trials: 12/12" in html and "95 % interval" in html
    assert "12/12" in repr(study) and "\n" not in repr(study)
    verdict = study.verdict
    assert "accuracy on test from" in repr(verdict)
    assert "95 % interval" in verdict._repr_html_()
    assert verdict.to_json()["trial"] == verdict.trial


def test_a_study_without_trials_shows_itself(make_study, tmp_path):
    study = Study(make_study(tmp_path / "s", limit=0))
    assert "trials: 0/" in study._repr_html_()
    assert study.verdict is None


def test_outside_text_is_escaped(hostile_study):
    study = Study(hostile_study)
    for html in (study._repr_html_(), study.verdict._repr_html_()):
        assert "<script" not in html and "<img" not in html
        assert html.count("<pre") == 1


def test_a_figure_is_a_picture_without_any_backend(study):
    figure = Study(study).history()
    assert isinstance(figure, Picture)
    assert figure._repr_png_().startswith(PNG)
    assert "Figure size" not in repr(figure)
