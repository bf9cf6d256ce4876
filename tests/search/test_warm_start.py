"""What a study begins with, and what may not be asked of a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from search.config import StudyConfig, parse_config, read_config, write_config
from search.cuts.composition import Composition
from search.demo.study import HERE
from search.plan import make_plan
from search.sections import SearchConfig
from search.strategies.registry import check_strategy
from search.study.study_record import CONFIG
from tasks.errors import InputError


def demo(space: dict[str, Any] | None = None, **search: Any) -> StudyConfig:
    return parse_config(
        {
            "model": {"path": str(HERE / "model")},
            "task": {"name": "jsonl", "data": str(HERE / "questions.jsonl")},
            "split": {"validation": 0.5},
            "space": space or {},
            "search": search,
        },
        "test",
    )


@pytest.fixture
def other(tmp_path: Path, make_config, open_study, drive) -> Path:
    """Another study's folder: four layers, where the demo has three."""
    folder = tmp_path / "other"
    config = make_config(trials=25)
    study = open_study(folder, config)
    drive(study)
    write_config(config, folder / CONFIG)
    study.identity.write(folder)
    return folder


def test_the_best_of_another_study_are_tried_where_this_model_has_the_matrix(
    other: Path, open_study
) -> None:
    trials = sorted(open_study(other).trials(), key=lambda trial: trial.merit, reverse=True)
    plan = make_plan(demo(warm_start=["2.fc_in=0.35", str(other)]))
    first, *rest = plan.config.search.warm_start
    assert first == "2.fc_in=0.35"
    expected = []
    for trial in trials[:10]:
        cuts = [cut for cut in trial.text.split() if cut[0] != "3"]
        expected += [" ".join(cuts)] if cuts else []
    assert rest == list(dict.fromkeys(expected))
    assert make_plan(plan.config).config == plan.config, "a resumed study reads the same"


def test_a_folder_is_found_beside_the_file_and_a_composition_is_left_alone(tmp_path: Path) -> None:
    write_config(demo(warm_start=["other", "1.fc_in=0.1"]), tmp_path / "study.yaml")
    found = read_config(tmp_path / "study.yaml").search.warm_start
    assert found == [str(tmp_path / "other"), "1.fc_in=0.1"]


def test_groups_are_laid_over_the_model() -> None:
    space = make_plan(demo({"matrices": ["mlp"], "groups": ["mlp", "0-1.fc_in"]})).space
    assert [(s.name, [str(m) for m in s.matrices]) for s in space.groups] == [
        *((f"{n}.mlp", [f"{n}.fc_in", f"{n}.fc_out"]) for n in range(3)),
        ("0-1.fc_in", ["0.fc_in", "1.fc_in"]),
    ]
    assert len(space.sites) == 6 + 4
    alone = {"groups": ["*.mlp"], "singles": False, "max_interventions": 1}
    (site,) = make_plan(demo(alone)).space.sites
    assert len(site.matrices) == 6


@pytest.mark.parametrize(
    ("space", "search", "words"),
    [
        ({"groups": ["mpl"]}, {}, "groups contains 'mpl', which matches fewer than two matrices"),
        ({"groups": ["1.fc_in"]}, {}, "fewer than two matrices"),
        ({"groups": ["0-7.fc_in"]}, {}, r"'0-7', but the model has layers 0 to 2"),
        ({"groups": ["mlp"], "singles": False, "max_interventions": 4}, {}, "only 3 choices"),
        ({"max_interventions": 7}, {}, "max_interventions is 7, but the space has only 6 matrices"),
        ({}, {"warm_start": ["./nowhere"]}, "neither a composition such as"),
        ({}, {"warm_start": ["1.q_proj=0.1"]}, r"cuts 1\.q_proj, which is not in the search space"),
        ({}, {"warm_start": ["9.fc_in=0.1"]}, r"'9\.fc_in' matches no matrix"),
        ({}, {"warm_start": ["1.fc_in=1.5"]}, r"rho 1\.5 is outside \[0, 1\]"),
        (
            {},
            {"strategy": "cma-es", "pareto": True},
            "optimises one value; for pareto use nsga-ii",
        ),
        ({}, {"strategy": "gready"}, "did you mean 'greedy'"),
    ],
)
def test_bad_options_are_refused_with_a_sentence(space, search, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_plan(demo(space, **search))


@pytest.mark.parametrize(
    ("space", "search", "words"),
    [
        ({"singles": False}, {}, "leaves nothing to cut"),
        ({"rho": [1.5]}, {}, "less than or equal to 1"),
        ({}, {"refine": -1}, "greater than or equal to 0"),
        ({}, {"refine": 2.5}, "whole number of trials, or a fraction"),
        ({}, {"refine": 200}, "leaves none of the 200 trials"),
        ({}, {"encoding": "slot"}, "did you mean 'slots'"),
        ({}, {"threshold": "mp"}, "'laser-rmt' or 'marchenko-pastur'"),
        ({"rho": [0.1], "levels": [0.2]}, {}, "give either rho or levels"),
        ({"levels": ["prune/rank:3"]}, {}, "'prune' takes a rho, not a rank"),
        ({"levels": ["quantised/0.1"]}, {}, "kind 'quantised' does not exist"),
    ],
)
def test_what_no_model_could_make_right_is_refused_at_once(space, search, words: str) -> None:
    with pytest.raises(InputError, match=words):
        demo(space, **search)


def test_an_absent_library_is_named_with_the_extra(monkeypatch) -> None:
    cma_es = SearchConfig(strategy="cma-es")
    check_strategy(cma_es)
    monkeypatch.setitem(__import__("sys").modules, "cmaes", None)
    with pytest.raises(InputError, match=r"needs the library cmaes.*laser-search\[cmaes\]"):
        check_strategy(cma_es)


def test_a_warm_start_with_a_rho_off_the_grid_is_tried_as_it_is(
    tmp_path: Path, make_config, open_study, drive
) -> None:
    given = ["1.fc_in=0.33 2.fc_out=rank:5", "3.fc_in=zero"]
    study = open_study(tmp_path, make_config(trials=12, warm_start=given))
    evaluated = drive(study)
    assert evaluated[1:3] == ["1.fc_in=keep-top:21 2.fc_out=keep-top:5", "3.fc_in=zero:0"]
    assert study.spent == 12
    assert study.trials()[0].text == str(Composition.parse(given[0].split()))
