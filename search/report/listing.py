"""Every matrix of a model as rows to print, without loading its weights."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from search.model import ModelSource
from search.origin import WeightOrigin
from search.weights.matrices import Matrix, all_matrices
from search.weights.remote import open_factors


@dataclass(frozen=True)
class MatrixRow:
    """One matrix. `why_not` is empty for what is searchable; `cached` None if it was not asked."""

    address: str
    type: str
    shape: tuple[int, int]
    dtype: str
    parameters: int
    parameter: str
    module: str
    rule: str
    searchable: bool
    why_not: str
    cached: bool | None


def list_matrices(
    source: ModelSource, factors: str | os.PathLike[str] | None = None
) -> list[MatrixRow]:
    """A row per matrix of `source`, by its skeleton.

    With `factors`, each matrix is read to learn its key, and the row says whether that cache has
    it. Raises InputError.
    """
    found = all_matrices(source.skeleton())
    cache = None if factors is None else open_factors(factors)
    origin = None if cache is None else WeightOrigin(source)
    rows = []
    for matrix in found:
        cached = None
        if cache is not None and origin is not None:
            cached = cache.has(cache.key(origin.read(matrix)))
        rows.append(_row(matrix, cached))
    return rows


def _row(matrix: Matrix, cached: bool | None) -> MatrixRow:
    return MatrixRow(
        address=str(matrix.ref),
        type=matrix.ref.type,
        shape=matrix.shape,
        dtype=str(matrix.dtype).removeprefix("torch."),
        parameters=matrix.shape[0] * matrix.shape[1],
        parameter=matrix.parameter,
        module=matrix.module,
        rule=matrix.rule,
        searchable=matrix.searchable,
        why_not="" if matrix.searchable else matrix.shared or matrix.rule,
        cached=cached,
    )


def table(rows: Sequence[MatrixRow]) -> Iterator[str]:
    """Lines with aligned columns, and a last one that sums up."""
    asked = any(row.cached is not None for row in rows)
    head = ["address", "type", "shape", "dtype", "parameters", "searchable"]
    head += (["cached"] if asked else []) + ["module", "named by"]
    cells = [head] + [_cells(row, asked) for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    for line in cells:
        yield "  ".join(
            f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)
        ).strip()
    total = sum(row.parameters for row in rows)
    searchable = sum(row.searchable for row in rows)
    cached = f", {sum(bool(row.cached) for row in rows)} cached" if asked else ""
    yield f"{len(rows)} matrices, {total:,} parameters, {searchable} searchable{cached}"


def _cells(row: MatrixRow, asked: bool) -> list[str]:
    # A reason not to search is part of the rule, which stands in the last column.
    cells = [row.address, row.type, "x".join(map(str, row.shape)), row.dtype]
    cells += [f"{row.parameters:,}", "yes" if row.searchable else "no"]
    return cells + (["yes" if row.cached else "no"] if asked else []) + [row.module, row.rule]
