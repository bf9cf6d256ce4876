"""A level: how strongly a matrix is cut, and in which way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from search.cuts.kinds.base import Kind
from search.cuts.kinds.registry import get_kind, kind_names
from search.cuts.rules import RULES, THRESHOLDS, RankRule
from tasks.errors import InputError, nearest

PLAIN = "keep-top"
"""The kind of a level that names none."""


@dataclass(frozen=True, slots=True)
class Level:
    """A rank rule with its value, and the kind of cut that is made to it; prints as text.

    ``0.1``, ``rank:3``, ``energy:0.9``, ``marchenko-pastur``, ``prune/0.5``, ``keep-bottom/0.1``,
    ``zero``. Raises InputError if there is no such kind, or the value means nothing to it.
    """

    rule: RankRule
    kind: str = PLAIN

    def __post_init__(self) -> None:
        """Refuse unknown kinds and values that a kind cannot use."""
        self.made_by.check(self.rule)

    @property
    def made_by(self) -> Kind:
        """The kind itself, which says everything else."""
        return get_kind(self.kind)

    @property
    def family(self) -> tuple[str, str]:
        """Kind and rule: levels of one family differ by their value alone."""
        return (self.kind, self.rule.name)

    @property
    def keeps_nothing(self) -> bool:
        """Whether the zero matrix is left, of whatever matrix."""
        return self.made_by.keeps_nothing(self.rule)

    def __str__(self) -> str:
        """Text that `parse` reads back."""
        if self.made_by.fixed is not None:
            return self.kind
        return str(self.rule) if self.kind == PLAIN else f"{self.kind}/{self.rule}"

    @staticmethod
    def parse(text: str | float) -> Level:
        """Read ``VALUE``, ``RULE:VALUE``, ``KIND/VALUE``, ``KIND/RULE:VALUE`` or ``KIND``.

        A rule with a threshold, and a kind that takes no value, stand alone. Raises InputError.
        """
        if isinstance(text, int | float):
            return Level(RankRule("rho", float(text)))
        kind, slash, value = text.partition("/")
        if not slash:
            kind, value = PLAIN, text
        try:
            return Level(RankRule.parse(value), kind)
        except InputError:
            raise
        except ValueError:  # no number: looking for installed kinds takes time, so it comes last
            return Level._alone(text)

    @staticmethod
    def _alone(text: str) -> Level:
        """A kind that stands alone. Raises InputError if `text` is none."""
        known = kind_names()
        if text not in known:
            raise InputError(
                f"{text.rpartition('/')[2].rpartition(':')[2]!r} in {text!r} is not a number; "
                f"expected RHO, RULE:VALUE or KIND/VALUE with a rule among {', '.join(RULES)}"
                + nearest(text, [*known, *THRESHOLDS])
            )
        fixed = get_kind(text).fixed
        if fixed is None:
            raise InputError(f"kind {text!r} needs a value, such as '{text}/0.1'")
        return Level(fixed, text)

    @staticmethod
    def of_rho(values: Iterable[float], kind: str = PLAIN) -> tuple[Level, ...]:
        """Levels of the fractions `values`, in their order."""
        return tuple(Level(RankRule("rho", value), kind) for value in values)

    def as_laser(self, model_type: str) -> Level:
        """The level as LASER's own code makes it. Raises InputError if it cannot."""
        return Level(self.rule, self.made_by.as_laser(model_type))
