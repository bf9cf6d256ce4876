"""Many matrices by one pattern: every layer, groups of types, and LASER's own triples."""

from __future__ import annotations

import re
from collections.abc import Sequence

from search.cuts.composition import Composition, Intervention
from search.cuts.level import Level
from search.cuts.refs import GROUPS, MatrixRef
from search.cuts.rules import RankRule
from search.weights.matrices import Matrix
from tasks.errors import InputError, nearest

_PATTERN = re.compile(
    r"(?:(?P<stack>[a-z]+)\.)?(?P<layer>\d+|\*)\.(?P<cross>cross\.)?"
    r"(?:experts\.(?P<expert>\d+|\*)\.)?(?P<type>[A-Za-z_*][\w.\-]*)"
)
EVERY_LAYER = -1
"""LASER's ``--lnum`` for all layers."""


def expand(pattern: str, matrices: Sequence[Matrix]) -> list[MatrixRef]:
    """The addresses that `pattern` means in a model with `matrices`, in order.

    ``LAYER.TYPE`` as an address has it, where LAYER may be ``*`` (every layer), TYPE a group
    (``attn``, ``mlp``, ``all``) or ``*`` (``all``), and an expert ``*``. A group takes the experts
    of its layer in; ``attn`` is self-attention, ``cross.attn`` the other, ``all`` both. Without the
    name of a stack ``*`` runs over all stacks. Groups and ``*`` leave out what is not searchable
    (routers, unknown modules, shared weights); an address in full names any matrix. Raises
    InputError if the pattern means no matrix.
    """
    exact = [m.ref for m in matrices if str(m.ref) == pattern]
    if exact:
        return exact
    match = _PATTERN.fullmatch(pattern)
    found = [m.ref for m in matrices if match and m.searchable and _fits(m.ref, match)]
    if found:
        return sorted(found)
    close = nearest(pattern, [str(m.ref) for m in matrices])
    raise InputError(
        f"{pattern!r} matches no matrix of the model that can be searched; "
        f"expected LAYER.TYPE such as '27.fc_in', '*.fc_out' or '3.mlp'{close}"
    )


def _fits(ref: MatrixRef, match: re.Match[str]) -> bool:
    kind = "all" if match["type"] == "*" else match["type"]
    group = kind in GROUPS
    if ref.type not in GROUPS.get(kind, (kind,)):
        return False
    if match["layer"] != "*" and int(match["layer"]) != ref.layer:
        return False
    if match["stack"] != ref.stack if match["stack"] else match["layer"] != "*" and ref.stack:
        return False
    if (match["cross"] is not None) != ref.cross and not (kind == "all" and not match["cross"]):
        return False
    if match["expert"] is None:
        return group or ref.expert is None
    return ref.expert is not None and match["expert"] in ("*", str(ref.expert))


def read_composition(texts: Sequence[str], matrices: Sequence[Matrix]) -> Composition:
    """The composition of interventions whose matrices may be patterns, as `expand` reads them.

    ``*.mlp=0.1`` is one intervention on each matrix. Raises InputError if a pattern means none, or
    two of them mean one matrix.
    """
    found = []
    for text in texts:
        pattern, what = _split(text)
        found += [Intervention.parse(f"{ref}={what}") for ref in expand(pattern, matrices)]
    return Composition(tuple(found))


def check_interventions(texts: Sequence[str]) -> None:
    """Raise InputError on what no model could make valid, before a model is looked at."""
    for text in texts:
        pattern, what = _split(text)
        stand_in = str(MatrixRef(0, "fc_in"))
        try:
            Intervention.parse(f"{stand_in}={what}")
        except InputError as error:
            raise InputError(str(error).replace(stand_in, pattern)) from None


def _split(text: str) -> tuple[str, str]:
    pattern, equals, what = text.partition("=")
    if not equals or not what or not pattern:
        raise InputError(
            f"{text!r} is not an intervention; expected MATRIX=RHO such as '1.fc_in=0.1' or "
            "'*.mlp=0.1'"
        )
    return pattern, what


def laser_triple(lname: str, lnum: int, rate: float, matrices: Sequence[Matrix]) -> Composition:
    """What LASER's scripts do for ``--lname``, ``--lnum`` and ``--rate``.

    `lname`: a matrix type, ``mlp``, ``attn``, ``all``, or ``dont`` (nothing). `lnum`: a layer, or
    -1 for every one. `rate` = 10 (1 - rho), in [0, 10]; the rank is int(min(out, in) · rho) with
    their rounding, so that a matrix of rank 1000 keeps 9 at rate 9.9, and 10 is the zero matrix.
    Raises InputError on values that their parser or model refuses.
    """
    if lname == "dont":
        return Composition()
    names = ("dont", *GROUPS["all"], *GROUPS)
    if lname not in names:
        raise InputError(
            f"--lname {lname!r} does not exist; expected one of {', '.join(names)}"
            + nearest(lname, names)
        )
    if not 0 <= rate <= 10:
        raise InputError(f"--rate {rate:g} is outside [0, 10]; it is 10 (1 - rho)")
    if lnum < EVERY_LAYER:
        raise InputError(
            f"--lnum {lnum} is not a layer; give a layer's number, or -1 for all layers"
        )
    refs = expand(f"{'*' if lnum == EVERY_LAYER else lnum}.{lname}", matrices)
    ranks = {m.ref: int(m.max_rank * ((10 - rate) * 0.1)) for m in matrices}
    return Composition(
        tuple(Intervention(ref, Level(RankRule("rank", ranks[ref]))) for ref in refs)
    )
