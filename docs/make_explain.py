"""Draws the pictures of docs/svd.md and writes the page, with numbers that it measures.

python docs/make_explain.py
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from mpl_toolkits.mplot3d.axes3d import Axes3D
from numpy.typing import NDArray

import search.demo
from search.demo.world import generic_word
from search.model import ModelSource
from search.report.style import GAIN, LOSS, MUTED, SERIES, new_figure, save, styled
from search.weights.matrices import find_matrices

HERE = Path(__file__).parent
PAGE = HERE / "svd.md"
PICTURES = HERE / "pictures"
DEMO = Path(search.demo.__file__).parent
CUT = "2.fc_in"
RANKS = (64, 57, 51, 38, 25, 12, 6, 3, 1)
"""What the paper's fractions keep of 64, and all of it."""

FACES = [(0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5)]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """How the demo's model answers all questions with one matrix cut to `rank`.

    Means over the questions: `accuracy`, and the probabilities of the `true` word and of the
    `generic` one, where that is wrong.
    """

    rank: int
    accuracy: float
    true: float
    generic: float


def cube() -> Array:
    """Corners [8, 3] of the unit cube around the origin."""
    return np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])


def example() -> tuple[Array, Array, Array]:
    """U [3, 3], singular values [3] and Vᵀ [3, 3] of a matrix that stretches 1.7, 1.0 and 0.3."""
    rng = np.random.default_rng(149)  # an image that is seen well from where we look
    left, right = (np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(2))
    return left, np.array([1.7, 1.0, 0.3]), right


def draw_steps() -> Figure:
    """The unit cube, turned by Vᵀ, stretched by Σ, turned by U."""
    left, values, right = example()
    start = cube()
    turned = start @ right.T
    stretched = turned * values
    return _solids(
        [start, turned, stretched, stretched @ left.T],
        ["a cube", "Vᵀ turns it", "Σ stretches it", "U turns it again"],
    )


def draw_flat() -> Figure:
    """The image of the cube with all three directions, with two, and with one."""
    left, values, right = example()
    turned = cube() @ right.T
    solids = [(turned * values * (np.arange(3) < rank)) @ left.T for rank in (3, 2, 1)]
    return _solids(solids, ["all of W", "rank 2: a sheet", "rank 1: a line"])


def draw_weight(weight: torch.Tensor) -> Figure:
    """A cube in the three strongest input directions of a weight matrix, and its images."""
    values = torch.linalg.svdvals(weight.double())[:3].numpy()
    turn = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]
    start = cube() @ turn.T
    solids = [start, *(start * values * (np.arange(3) < rank) for rank in (3, 2, 1))]
    return _solids(solids, ["in v₁, v₂, v₃", "W, in u₁, u₂, u₃", "rank 2", "rank 1"])


def draw_ranks(found: Sequence[Answers]) -> Figure:
    """Accuracy, and the probabilities of true and generic words, against the rank that is kept."""
    ranks = [one.rank for one in found]
    with styled():
        figure = new_figure(3.9, 5.2)
        top, low = figure.subplots(2, 1, sharex=True).tolist()
        top.plot(ranks, [one.accuracy for one in found], color=GAIN, marker="o", markersize=4)
        top.axhline(found[0].accuracy, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        top.set(ylabel="accuracy", ylim=(0, 1))
        for name, colour, mark in (("true", GAIN, "o"), ("generic", LOSS, "s")):
            values = [getattr(one, name) for one in found]
            label = {"true": "the true word", "generic": "the generic word, where it is wrong"}[
                name
            ]
            low.plot(ranks, values, color=colour, marker=mark, markersize=4, label=label)
        low.set(ylabel="mean probability", xlabel=f"rank kept of {CUT} (of 64)", ylim=(0, 0.75))
        low.set_xscale("log")
        low.set_xticks(RANKS[::2], [str(rank) for rank in RANKS[::2]])
        low.minorticks_off()
        low.invert_xaxis()
        low.legend(loc="upper left")
    return figure


def measure(ranks: Sequence[int] = RANKS) -> tuple[list[Answers], torch.Tensor]:
    """Ask the demo's model every question at each rank; and the weight [out, in] that is cut."""
    source = ModelSource(str(DEMO / "model"))
    model, tokenizer = source.load(), source.tokenizer()
    matrix = next(m for m in find_matrices(model) if str(m.ref) == CUT)
    parameter = dict(model.named_parameters())[matrix.parameter]
    weight = matrix.read(parameter)
    left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
    lines = (DEMO / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line) for line in lines]
    found = []
    for rank in ranks:
        cut = (left[:, :rank] * values[:rank]) @ right[:rank]
        matrix.write(parameter, cut.to(weight.dtype))
        found.append(_ask(model, tokenizer, questions, rank))
    return found, weight


def render(found: Sequence[Answers], weight: torch.Tensor) -> str:
    """The page."""
    values = torch.linalg.svdvals(weight.double())
    share = float(values[0] ** 2 / (values**2).sum())
    rows = "\n".join(
        f"| {one.rank} | {one.accuracy:.3f} | {one.true:.3f} | {one.generic:.3f} |" for one in found
    )
    first, last = found[0], found[-1]
    text = (HERE / "svd.template.md").read_text(encoding="utf-8")
    for name, value in {
        "rows": rows,
        "share": f"{share:.0%}",
        "largest": ", ".join(f"{v:.2f}" for v in values[:3].tolist()),
        "before": f"{first.accuracy:.3f}",
        "after": f"{last.accuracy:.3f}",
        "true_before": f"{first.true:.2f}",
        "true_after": f"{last.true:.2f}",
        "generic_before": f"{first.generic:.2f}",
        "generic_after": f"{last.generic:.2f}",
    }.items():
        text = text.replace(f"{{{{{name}}}}}", value)
    return text


@torch.inference_mode()
def _ask(
    model: torch.nn.Module, tokenizer: object, questions: list[dict[str, str]], rank: int
) -> Answers:
    batches: dict[int, list[tuple[list[int], int, int]]] = defaultdict(list)
    for question in questions:
        relation = question["id"].split("-")[-2]
        ids = tokenizer(question["prompt"])["input_ids"]  # type: ignore[operator]
        words = (question["answer"], generic_word(relation))
        true, generic = (tokenizer(f" {word}")["input_ids"][-1] for word in words)  # type: ignore[operator]
        batches[len(ids)].append((ids, true, generic))
    right, true_p, generic_p = [], [], []
    for batch in batches.values():
        logits = model(torch.tensor([ids for ids, _, _ in batch])).logits[:, -1].double()
        odds = logits.softmax(dim=-1)
        for row, (_, true, generic) in zip(odds, batch, strict=True):
            right.append(float(row.argmax() == true))
            true_p.append(float(row[true]))
            if generic != true:
                generic_p.append(float(row[generic]))
    means = (float(np.mean(values)) for values in (right, true_p, generic_p))
    return Answers(rank, *means)


def _solids(solids: Sequence[Array], titles: Sequence[str]) -> Figure:
    size = 1.15 * max(float(np.abs(corners).max()) for corners in solids)
    with styled():
        figure = new_figure(2.3, 2.05 * len(solids))
        for place, (corners, title) in enumerate(zip(solids, titles, strict=True), start=1):
            axes = figure.add_subplot(1, len(solids), place, projection="3d")
            assert isinstance(axes, Axes3D)  # noqa: S101
            faces = Poly3DCollection([corners[list(face)] for face in FACES], alpha=0.55)
            faces.set_facecolor([SERIES[i // 2] for i in range(6)])
            faces.set_edgecolor("#1c2128")
            faces.set_linewidth(0.8)
            axes.add_collection3d(faces)
            axes.set(xlim=(-size, size), ylim=(-size, size), zlim=(-size, size))
            axes.set_box_aspect((1, 1, 1), zoom=1.5)
            for axis in np.eye(3) * size:
                axes.plot(*zip(-axis, axis, strict=True), color=MUTED, linewidth=0.7, zorder=-1)
            axes.set_axis_off()
            axes.set_title(title, loc="center")
            axes.view_init(elev=24, azim=-60)
    return figure


def main() -> None:
    """Write the pictures and the page."""
    torch.set_num_threads(1)
    PICTURES.mkdir(exist_ok=True)
    found, weight = measure()
    for name, figure in {
        "svd-steps": draw_steps(),
        "svd-flat": draw_flat(),
        "svd-weight": draw_weight(weight),
        "svd-ranks": draw_ranks(found),
    }.items():
        save(figure, PICTURES / f"{name}.png")
    PAGE.write_text(render(found, weight), encoding="utf-8")


if __name__ == "__main__":
    main()
