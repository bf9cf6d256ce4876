"""Interventions and their compositions: canonical order, text, plain data and digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from search.cuts.kinds.base import Kind
from search.cuts.level import Level
from search.cuts.refs import MatrixRef
from search.cuts.rules import RankRule
from tasks.errors import InputError

SCHEMA = 1

MOST_SHOWN = 8
"""Cuts up to which a view shows a composition's text."""


def brief(text: str, kept: float | None = None) -> str:
    """A composition's text as views have room for it: of many cuts their number alone.

    `kept`: the share of the parameters that stay, where that is known.
    """
    count = text.count("=")
    if count <= MOST_SHOWN:
        return text
    return f"{count} cuts" + ("" if kept is None else f", kept {100 * kept:.1f} %")


@dataclass(frozen=True, slots=True)
class Intervention:
    """One matrix cut to a level."""

    matrix: MatrixRef
    level: Level

    @property
    def rule(self) -> RankRule:
        """The level's rank rule."""
        return self.level.rule

    @property
    def kind(self) -> str:
        """The name of the level's kind."""
        return self.level.kind

    @property
    def made_by(self) -> Kind:
        """The level's kind, which says what is done to the matrix."""
        return self.level.made_by

    def __str__(self) -> str:
        """Text that `parse` reads back: ``2.fc_in=0.1``, ``2.fc_in=keep-bottom/rank:3``."""
        return f"{self.matrix}={self.level}"

    @staticmethod
    @lru_cache(maxsize=2**16)  # each of twelve pieces of a budget's screen has 27,000
    def parse(text: str) -> Intervention:
        """Read ``MATRIX=LEVEL``; see `Level.parse`. Raises InputError."""
        address, equals, level = text.partition("=")
        if not equals or not level:
            raise InputError(
                f"{text!r} is not an intervention; expected MATRIX=RHO such as '1.fc_in=0.1'"
            )
        matrix = MatrixRef.parse(address)
        try:
            return Intervention(matrix, Level.parse(level))
        except InputError as error:
            raise InputError(f"{text!r}: {error}") from None


@dataclass(frozen=True, slots=True)
class Composition:
    """A set of interventions on distinct matrices, in canonical order. Empty is the baseline."""

    interventions: tuple[Intervention, ...] = ()

    def __post_init__(self) -> None:
        """Sort, and refuse two interventions on one matrix."""
        ordered = tuple(sorted(self.interventions, key=lambda i: i.matrix.order))
        for first, second in pairwise(ordered):
            if first.matrix == second.matrix:
                raise InputError(
                    f"{first.matrix} is cut twice ({first} and {second}); "
                    "a composition has at most one intervention per matrix"
                )
        object.__setattr__(self, "interventions", ordered)

    def __str__(self) -> str:
        """The interventions separated by spaces, or ``baseline``."""
        return " ".join(map(str, self.interventions)) or "baseline"

    @staticmethod
    def parse(texts: Iterable[str]) -> Composition:
        """Read a composition from intervention texts."""
        return Composition(tuple(Intervention.parse(text) for text in texts))

    def to_dict(self) -> dict[str, Any]:
        """Plain data with a schema version, for JSON and for other processes."""
        rows = [
            {
                "matrix": str(i.matrix),
                "kind": i.kind,
                "rule": i.rule.name,
                "value": float(i.rule.value),
            }
            for i in self.interventions
        ]
        return {"schema": SCHEMA, "interventions": rows}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Composition:
        """Read what `to_dict` made. Raises InputError on another schema or shape."""
        try:
            if data["schema"] != SCHEMA:
                raise InputError(
                    f"composition schema {data['schema']!r} is not {SCHEMA}; "
                    "use the version of laser-search that wrote it"
                )
            rows = [
                Intervention(
                    MatrixRef.parse(row["matrix"]),
                    Level(RankRule(row["rule"], row["value"]), row["kind"]),
                )
                for row in data["interventions"]
            ]
        except (KeyError, TypeError) as error:
            raise InputError(f"{str(data)[:80]} is not a composition: {error!r}") from None
        return Composition(tuple(rows))

    @property
    def canonical(self) -> str:
        """`to_dict` as canonical JSON: sorted keys, no spaces."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()

    def effect(
        self,
        max_ranks: Mapping[MatrixRef, int],
        spectra: Mapping[MatrixRef, Sequence[float]] | None = None,
        shapes: Mapping[MatrixRef, tuple[int, int]] | None = None,
    ) -> str:
        """What the composition does to a model whose matrices have `max_ranks` = min(out, in).

        Canonical text. Two compositions with one effect give one result (rho 0.01 and 0.005 both
        keep rank 1 of 64), so a study evaluates an effect once. Interventions that keep everything
        drop out. Rules that read the spectrum need `spectra`, descending singular values, and
        `shapes` (out, in) of their matrices, and raise ValueError without.
        """
        parts = []
        for i in self.interventions:
            spectrum, shape = (spectra or {}).get(i.matrix), (shapes or {}).get(i.matrix)
            effect = i.made_by.effect(i.rule, max_ranks[i.matrix], spectrum, shape)
            if effect:
                parts.append(f"{i.matrix}={effect}")
        return " ".join(parts)

    def as_laser(self, model_type: str) -> Composition:
        """The same cuts as LASER's code makes them: its own low rank, its own pruning.

        `model_type`: of the model's configuration. Raises InputError where a rule reads the
        spectrum, which its code does not.
        """
        cuts = [Intervention(i.matrix, i.level.as_laser(model_type)) for i in self.interventions]
        return Composition(tuple(cuts))
