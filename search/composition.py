"""Interventions and their compositions: canonical order, JSON and digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from search.weights.ranks import RULES, THRESHOLDS, RankRule
from search.weights.refs import MatrixRef
from tasks.errors import InputError, nearest

SCHEMA = 1
ITERATIONS = {"svd-lowrank": 2, "svd-lowrank-20": 20}
"""LASER's own low rank by kind, with its power iterations: 20 for RoBERTa, else 2."""

KINDS = ("keep-top", "keep-bottom", "zero", "prune", "prune-paper", *ITERATIONS)


@dataclass(frozen=True, slots=True)
class Intervention:
    """One matrix replaced by a simpler one.

    `kind`: ``keep-top`` keeps the largest singular values (LASER), ``keep-bottom`` the smallest
    (the paper's analysis), ``zero`` nothing, ``prune`` zeroes the smallest absolute entries and
    keeps the fraction rho of them. As LASER's code has it, for parity: ``svd-lowrank`` is
    `torch.svd_lowrank` (2 iterations, seeded), ``svd-lowrank-20`` the same with 20, as for RoBERTa,
    and ``prune-paper`` zeroes one entry more than the fraction.
    """

    matrix: MatrixRef
    rule: RankRule
    kind: str = "keep-top"

    def __post_init__(self) -> None:
        """Refuse unknown kinds and fractions that a kind cannot use."""
        if self.kind not in KINDS:
            raise InputError(
                f"kind {self.kind!r} does not exist; expected one of {', '.join(KINDS)}"
                + nearest(self.kind, KINDS)
            )
        if self.prunes and self.rule.name != "rho":
            raise InputError(
                f"kind {self.kind!r} of {self.matrix} takes a rho, not a {self.rule.name}"
            )
        if self.kind in ITERATIONS and self.rule.needs_spectrum:
            raise InputError(
                f"kind {self.kind!r} of {self.matrix} takes a rho or a rank, not a {self.rule.name}"
            )
        if self.kind == "zero" and self.rule.value != 0:
            raise InputError(f"kind 'zero' of {self.matrix} keeps nothing; leave its value out")

    @property
    def prunes(self) -> bool:
        """Whether single entries go, not directions."""
        return self.kind in ("prune", "prune-paper")

    def __str__(self) -> str:
        """Text that `parse` reads back: ``2.fc_in=0.1``, ``2.fc_in=keep-bottom/rank:3``."""
        if self.kind == "zero":
            return f"{self.matrix}=zero"
        kind = "" if self.kind == "keep-top" else f"{self.kind}/"
        rule = "" if self.rule.name == "rho" else f"{self.rule.name}:"
        return f"{self.matrix}={kind}{rule}{_number(self.rule.value)}"

    @staticmethod
    def parse(text: str) -> Intervention:
        """Read ``MATRIX=RHO``, ``MATRIX=RULE:VALUE``, ``MATRIX=KIND/...`` or ``MATRIX=zero``.

        A rule with a threshold may leave its value out: ``MATRIX=gavish-donoho``.
        """
        address, equals, spec = text.partition("=")
        if not equals or not spec:
            raise InputError(
                f"{text!r} is no intervention; expected MATRIX=RHO such as '1.fc_in=0.1'"
            )
        matrix = MatrixRef.parse(address)
        if spec == "zero":
            return Intervention(matrix, RankRule("rho", 0.0), "zero")
        kind, slash, rest = spec.partition("/")
        if not slash:
            kind, rest = "keep-top", spec
        name, colon, number = rest.partition(":")
        if rest in THRESHOLDS:
            number = "1"
        elif not colon:
            name, number = "rho", rest
        try:
            value = float(number)
        except ValueError:
            raise InputError(
                f"{number!r} in {text!r} is no number; expected MATRIX=RHO or MATRIX=RULE:VALUE "
                f"with a rule among {', '.join(RULES)}"
            ) from None
        return Intervention(matrix, RankRule(name, value), kind)


@dataclass(frozen=True, slots=True)
class Composition:
    """A set of interventions on distinct matrices, in canonical order. Empty is the baseline."""

    interventions: tuple[Intervention, ...] = ()

    def __post_init__(self) -> None:
        """Sort, and refuse two interventions on one matrix."""
        ordered = tuple(sorted(self.interventions, key=lambda i: i.matrix._order()))
        for first, second in pairwise(ordered):
            if first.matrix == second.matrix:
                raise InputError(
                    f"{first.matrix} is named twice ({first} and {second}); "
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

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces, a schema version."""
        rows = [
            {
                "matrix": str(i.matrix),
                "kind": i.kind,
                "rule": i.rule.name,
                "value": float(i.rule.value),
            }
            for i in self.interventions
        ]
        return json.dumps(
            {"schema": SCHEMA, "interventions": rows}, sort_keys=True, separators=(",", ":")
        )

    @staticmethod
    def from_json(text: str) -> Composition:
        """Read what `to_json` wrote. Raises InputError on another schema or shape."""
        try:
            data: dict[str, Any] = json.loads(text)
            if data["schema"] != SCHEMA:
                raise InputError(
                    f"composition schema {data['schema']!r} is not {SCHEMA}; "
                    "use the version of laser-search that wrote it"
                )
            rows = [
                Intervention(
                    MatrixRef.parse(row["matrix"]), RankRule(row["rule"], row["value"]), row["kind"]
                )
                for row in data["interventions"]
            ]
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise InputError(f"{text[:80]!r} is no composition in JSON: {error!r}") from None
        return Composition(tuple(rows))

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

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
            full = max_ranks[i.matrix]
            if i.prunes:
                kept: float = i.rule.value
                whole = kept == 1
            else:
                kept = i.rule.rank(
                    full, (spectra or {}).get(i.matrix), (shapes or {}).get(i.matrix)
                )
                whole = kept == full
            kind = "zero" if kept == 0 else i.kind
            if not whole:
                parts.append(f"{i.matrix}={kind}:{_number(kept)}")
        return " ".join(parts)


def _number(value: float) -> str:
    """The shortest text that reads back as exactly `value`."""
    return str(int(value)) if float(value).is_integer() else repr(float(value))
