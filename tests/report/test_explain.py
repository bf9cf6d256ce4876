"""The page that explains SVD and LASER says what its script measures."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def explain():
    spec = importlib.util.spec_from_file_location("make_explain", DOCS / "make_explain.py")
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["make_explain"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_page_has_the_numbers_of_the_demo(explain):
    page = explain.PAGE.read_text(encoding="utf-8")
    found, _ = explain.measure((64, 3, 1))
    for one in found:
        row = next(line for line in page.splitlines() if line.startswith(f"| {one.rank} |"))
        cells = [float(cell) for cell in row.split("|")[2:5]]
        assert cells == pytest.approx([one.accuracy, one.true, one.generic], abs=0.002)
    assert found[-1].accuracy > found[0].accuracy + 0.1
    assert "{{" not in page


def test_every_picture_is_there_and_small(explain):
    for name in ("steps", "flat", "weight", "ranks"):
        path = explain.PICTURES / f"svd-{name}.png"
        assert f"pictures/{path.name}" in explain.PAGE.read_text(encoding="utf-8")
        assert 5_000 < path.stat().st_size < 200_000


def test_the_steps_of_the_cube_are_those_of_its_matrix(explain):
    left, values, right = explain.example()
    weight = (left * values) @ right
    np.testing.assert_allclose(np.linalg.svd(weight, compute_uv=False), values)
    figure = explain.draw_steps()
    faces = [axes.collections[0] for axes in figure.axes]
    last = np.concatenate([np.asarray(face)[:, :3] for face in faces[-1]._faces])
    expected = explain.cube() @ weight.T
    for corner in last:
        assert np.abs(expected - corner).sum(axis=1).min() < 1e-9
