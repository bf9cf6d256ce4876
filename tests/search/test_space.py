from __future__ import annotations

import itertools
import random

import pytest

from search.cuts.composition import Composition
from search.cuts.refs import MatrixRef
from search.ladder import Ladder
from search.sections import SpaceConfig
from search.space import Site, Space, choose_layers, choose_types
from tasks.errors import InputError

REFS = tuple(MatrixRef(layer, kind) for layer in range(3) for kind in ("fc_in", "fc_out"))


def compositions(space: Space, n: int = 400) -> set[str]:
    rng = random.Random(0)
    ranks = dict.fromkeys(space.matrices, 16)
    return {space.cut(space.draw(rng)).effect(ranks) for _ in range(n)}


def test_size_counts_the_distinct_effects() -> None:
    # rho 0.01 and 0.05 both keep rank 1 of 16, and 1.0 keeps all: two effects a matrix remain.
    space = Space(REFS[:3], Ladder.of_rho((1.0, 0.5, 0.05, 0.01)), 2)
    ranks = dict.fromkeys(space.matrices, 16)
    expected = 3 * 2 + 3 * 2 * 2
    assert space.size(ranks) == expected
    assert len(compositions(space, 2000) - {""}) == expected


@pytest.mark.parametrize("refs", [REFS, REFS[:5], REFS[:2] + REFS[4:]])
def test_every_matrix_can_be_drawn(refs) -> None:
    space = Space(refs, Ladder.of_rho((0.5,)), 1)
    assert compositions(space) == {f"{ref}=keep-top:8" for ref in refs}


def test_a_drawn_composition_reads_back_as_its_choices() -> None:
    rng = random.Random(1)
    mlp = tuple(Site(f"{n}.mlp", REFS[2 * n : 2 * n + 2]) for n in range(3))
    for ladder in (Ladder.between(0.01, 0.9), Ladder.of_rho((0.9, 0.5, 0.1))):
        for space in (
            Space(REFS, ladder, 3),
            Space(REFS, ladder, 3, mlp),
            Space(REFS, ladder, 3, mlp, False),
        ):
            for _ in range(50):
                drawn = space.cut(choices := space.draw(rng))
                assert 1 <= len(choices) <= 3
                assert space.cut(space.choices(drawn)) == drawn
    assert space.choices(Composition.parse(["0.fc_in=0.4"])) is None
    assert space.choices(Composition.parse(["0.fc_in=rank:3"])) is None
    assert space.choices(Composition.parse(["7.fc_in=0.5"])) is None


def test_a_group_is_one_choice() -> None:
    groups = (Site("0.mlp", REFS[:2]), Site("fc_in", REFS[::2]))
    space = Space(REFS, Ladder.of_rho((0.5,)), 1, groups, False)
    assert compositions(space) == {
        "0.fc_in=keep-top:8 0.fc_out=keep-top:8",
        "0.fc_in=keep-top:8 1.fc_in=keep-top:8 2.fc_in=keep-top:8",
    }


def test_layers_and_types_expand() -> None:
    assert choose_layers(["0-2", 5], range(6)) == [0, 1, 2, 5]
    assert choose_types(["mlp"], ["q_proj", "fc_in", "fc_out"]) == ["fc_in", "fc_out"]
    assert choose_types(["fc_in", "all"], ["fc_in", "q_proj"]) == ["fc_in", "q_proj"]


@pytest.mark.parametrize("layers", [["x"], [7], ["5-9"], ["3-1"]])
def test_bad_layers_are_refused(layers) -> None:
    with pytest.raises(InputError, match=r"space\.layers"):
        choose_layers(layers, range(6))


def test_a_type_that_the_model_lacks_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"did you mean 'fc_out'"):
        choose_types(["fc_oot"], ["fc_in", "fc_out"])


def test_more_interventions_than_matrices_are_refused() -> None:
    class Found:
        searchable = True

        def __init__(self, ref: MatrixRef) -> None:
            self.ref = ref

    config = SpaceConfig(layers=[0], matrices=["fc_in"], rho=[0.1], max_interventions=2)
    with pytest.raises(InputError, match="only 1 matrices"):
        Space.build(config, [Found(ref) for ref in REFS])  # type: ignore[list-item]


def test_pairs_are_reachable() -> None:
    space = Space(REFS[:3], Ladder.of_rho((0.5,)), 2)
    found = compositions(space, 500)
    for a, b in itertools.combinations(REFS[:3], 2):
        assert f"{a}=keep-top:8 {b}=keep-top:8" in found
