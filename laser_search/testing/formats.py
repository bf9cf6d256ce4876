"""What holds for every format of export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from search.cuts.composition import Composition
from search.export.base import Base
from search.export.format import Format, Work
from search.export.formats import get_format
from search.export.verify import TOLERANCE
from search.model import ModelSource
from search.weights.edit import Editor
from search.weights.factors import FactorCache
from search.weights.matrices import find_matrices

CUTS = "0.fc_in=0.1 1.fc_out=rank:3"


def write_model(folder: Path) -> ModelSource:
    """A random GPT-2 of two layers, 64 wide, saved to `folder`."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=48, n_positions=32, n_embd=64, n_layer=2, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return ModelSource(str(folder), None, "causal")


def answers(model: Any) -> torch.Tensor:
    """Log-probabilities of the next token [2, 8, 48], float32."""
    ids = torch.arange(16).reshape(2, 8)
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=ids).logits
    return logits.float().log_softmax(-1)


class FormatContract:
    """Override `form`. The format must be installed: it is found by its name.

    `cuts`: what is done to a GPT-2 of two layers, 64 wide; another where the format cannot hold it.
    """

    cuts = CUTS

    @pytest.fixture
    def form(self) -> Format:
        """The format under test."""
        raise NotImplementedError

    @pytest.fixture
    def source(self, tmp_path: Path) -> ModelSource:
        """A small model on disk."""
        return write_model(tmp_path / "model")

    @pytest.fixture
    def work(self, source: ModelSource, tmp_path: Path) -> Work:
        """Two matrices of it cut."""
        store = FactorCache(tmp_path / "factors")
        return Work(Base(source), Composition.parse(self.cuts.split()), store)

    def test_it_is_found_by_its_name(self, form: Format) -> None:
        assert type(get_format(form.name)) is type(form)
        assert form.about
        assert form.library

    def test_what_is_loaded_answers_as_the_trial(
        self, form: Format, work: Work, source: ModelSource, tmp_path: Path
    ) -> None:
        trial = source.load("cpu")
        before = answers(trial)
        Editor(trial, find_matrices(trial), work.store).apply(work.composition)
        expected = answers(trial)
        assert (expected - before).abs().max() > 0.01, (
            "the cuts change nothing, so nothing is shown"
        )
        out, scratch = tmp_path / "out", tmp_path / "scratch"
        out.mkdir()
        scratch.mkdir()
        written = form.write(work, out)
        assert set(written.rows) == {str(i.matrix) for i in work.composition.interventions}
        found = answers(form.load(out, source, "cpu", scratch))
        if form.same_bytes:
            assert torch.equal(found, expected), "same_bytes promises the trial's own weights"
        allowed = 10 * TOLERANCE[torch.float32] * expected.abs().clamp(min=1)
        assert bool(((found - expected).abs() <= allowed).all())

    def test_it_needs_no_more_than_it_says(self, form: Format, work: Work, tmp_path: Path) -> None:
        """Bytes on disk; a little more for headers is allowed."""
        out = tmp_path / "out"
        out.mkdir()
        room = form.size(work)
        form.write(work, out)
        taken = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        assert taken <= room + 16_384

    def test_the_base_stays_as_it_was(self, form: Format, work: Work, tmp_path: Path) -> None:
        before = work.base.digest
        out = tmp_path / "out"
        out.mkdir()
        form.write(work, out)
        assert Base(work.base.source).digest == before

    def test_its_lines_name_folder_and_base(self, form: Format) -> None:
        lines = form.load_lines("my-folder", "my-base", "causal")
        assert "my-folder" in lines
        assert "CLASS" not in lines
        compile(lines, "usage", "exec")
