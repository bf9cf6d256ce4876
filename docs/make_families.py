"""Writes docs/families.md from the table that the tests of the families run over.

python docs/make_families.py
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.weights.layouts import LAYOUTS, layout_of

HERE = Path(__file__).parent
PAGE = HERE / "families.md"
CHECKED = HERE.parent / "tests" / "weights" / "test_families.py"

HEAD = """# Families whose matrices have been checked

<!-- Written by docs/make_families.py; a test fails when it is stale. -->

`laser-search matrices MODEL` lists the weight matrices of any model that transformers can build,
and the rule that named each of them. For each family below, a test builds a small random model and
checks that every linear map in its blocks is found exactly once, with the right type and shape, and
that a skeleton on the meta device lists the same matrices. `own` is a matrix without a type in
LASER's sense, such as a router; it keeps its module's name and is not part of the default space.
`experts.` stands for one matrix per expert, with the number of experts in the test's model. Models
of other families are handled by a structural fallback, which uses shapes and module names. Matrices
that the fallback does not recognise are listed under their module's name. Linear layers outside the
blocks (poolers, classifiers, heads) are listed by their module, without a layer: `pooler.dense`.
They are cut only if an intervention or `space.matrices` names them.

| family | `model_type` | layout | matrices in a block |
|---|---|---|---|
"""

TAIL = """
Layouts without a checked model, because their code comes with the checkpoint: {untested}.

A new family needs a row in `search/weights/layouts.py` and an entry in
`tests/weights/test_families.py`.
"""


def render() -> str:
    """The page."""
    families = _families()
    rows = []
    for name, (_, model_type, _, holds) in families.items():
        layout = layout_of(model_type.removesuffix("_text")) or layout_of(model_type)
        row = layout.name if layout else "by stack"
        stacks = holds.items() if isinstance(holds, dict) else [("", holds)]
        cells = [f"{stack}: {_kinds(text)}" if stack else _kinds(text) for stack, text in stacks]
        rows.append(f"| {name} | `{model_type}` | {row} | {'<br>'.join(cells)} |")
    tested = {model_type for _, model_type, _, _ in families.values()}
    untested = [layout.name for layout in LAYOUTS if not tested & set(layout.models)]
    return HEAD + "\n".join(rows) + "\n" + TAIL.format(untested=", ".join(untested))


def _kinds(text: str) -> str:
    words = " ".join(text.split()).replace("*", " x")
    return words.replace("q_proj k_proj v_proj", "q, k, v_proj")


def _families() -> Mapping[str, tuple[str, str, dict[str, Any], Any]]:
    spec = importlib.util.spec_from_file_location("checked_families", CHECKED)
    if spec is None or spec.loader is None:
        raise ImportError(f"{CHECKED} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Mapping[str, tuple[str, str, dict[str, Any], Any]] = module.FAMILIES
    return found


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
