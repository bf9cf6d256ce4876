"""Tiny random models of the families, and rows of random tokens."""

import importlib.util
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoConfig

from search.calibration.rows import Row


def load_families():
    path = Path(__file__).parents[1] / "weights" / "test_families.py"
    spec = importlib.util.spec_from_file_location("families_under_calibration", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FAMILIES


FAMILIES = load_families()


@pytest.fixture(scope="session")
def make_model():
    """A model of a family, by its name in tests/weights/test_families.py."""

    def make(family):
        auto, kind, options, _ = FAMILIES[family]
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, **options)
        model = getattr(transformers, auto).from_config(config).eval()
        return model.requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def make_rows():
    """Seeded rows of two lengths, with targets for a model that has a decoder."""

    def make(model, count=12):
        draw = torch.Generator().manual_seed(3)

        def ids(length):
            return tuple(torch.randint(5, 48, (length,), generator=draw).tolist())

        target = bool(model.config.is_encoder_decoder)
        return [Row(ids(5 + n % 2), target=ids(4) if target else ()) for n in range(count)]

    return make
