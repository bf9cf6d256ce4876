"""Published experiments by name: listed, searched, scored against the figures, and cut."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import search.demo
from search.config import parse_config
from search.paper import CELLS, cell
from search.preset_check import check_published
from search.presets import PRESETS, get_preset
from search.weights.selection import check_interventions
from tasks.base import Example, Outcome
from tasks.errors import InputError
from tasks.scoring import summarise

DEMO = Path(search.demo.__file__).parent


def test_the_papers_results_the_composition_and_the_posts_are_there():
    names = [preset.name for preset in PRESETS]
    assert len(set(names)) == len(names) == len(CELLS) + 4 == 28
    for preset in PRESETS:
        check_interventions(list(preset.interventions))
    best = get_preset("gptj-counterfact")
    assert (best.interventions, best.before, best.after) == (("27.fc_in=0.01",), 13.1, 24.0)
    assert best.trials == 28 * 2 * 9
    llama = get_preset("llama2-bigbench-epistemic-reasoning")
    found = cell("llama2", "bigbench:epistemic-reasoning")
    assert llama.interventions == (f"{found.layer}.{found.type}={found.rho:g}",)
    assert get_preset("llama2-counterfact").task == "counterfact:generated"
    assert get_preset("gptj-counterfact-composition").after == 29.2


def test_an_unknown_name_is_told_the_nearest():
    with pytest.raises(InputError, match="did you mean gptj-counterfact, ") as found:
        get_preset("gptj-counterfacts")
    assert "\n" not in str(found.value)
    with pytest.raises(InputError, match="lists all of them"):
        get_preset("zzzzzz")


def test_they_are_listed_for_people_and_for_scripts(run):
    code, said, _ = run("presets")
    assert code == 0
    (line,) = [one for one in said.splitlines() if one.startswith("gptj-counterfact ")]
    assert line.split() == (
        ["gptj-counterfact", "EleutherAI/gpt-j-6b", "27.fc_in=0.01", "13.1", "to", "24.0", "%"]
    )
    # The three that cannot be cut say so where the others show their cut.
    uncut = [one.split()[0] for one in said.splitlines() if "not published; init searches" in one]
    assert uncut == [one.name for one in PRESETS if not one.interventions] and len(uncut) == 3
    code, said, _ = run("presets", "--json")
    rows = json.loads(said)
    assert [row["name"] for row in rows] == [preset.name for preset in PRESETS]
    assert rows[0]["after"] == 19.3


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_each_has_a_study_that_searches_it(run, tmp_path, preset):
    out = tmp_path / "study.yaml"
    words = [] if preset.model else ["--model", "./bert"]
    assert run("init", out, "--preset", preset.name, *words)[0] == 0
    text = out.read_text()
    config = parse_config(yaml.safe_load(text), "test")
    assert preset.about in text and preset.published in text
    assert (config.model.path, config.task.name) == (preset.model or "./bert", preset.task)
    assert config.task.scoring == preset.scoring
    assert config.split.protocol == preset.protocol
    assert config.search.strategy == preset.strategy
    assert config.search.trials == preset.trials
    assert config.space.max_interventions == preset.cuts
    limited = preset.head == "causal" and preset.metric != "perplexity"
    assert config.guard.worse_by == (0.01 if limited else None)


@pytest.mark.parametrize(
    ("words", "limit"),
    [(["--unguarded"], None), (["--worse-by", "0.1"], 0.1), (["--worse-by", "0"], 0)],
)
def test_a_preset_has_the_limit_that_is_asked_for(run, tmp_path, words, limit):
    out = tmp_path / "study.yaml"
    assert run("init", out, "--preset", "gptj-counterfact", *words)[0] == 0
    assert parse_config(yaml.safe_load(out.read_text()), "test").guard.worse_by == limit


def test_a_study_of_other_copies_and_what_is_refused(run, tmp_path):
    out = tmp_path / "study.yaml"
    words = ("--preset", "roberta-fever", "--model", "./roberta", "--data", "./fever.jsonl")
    assert run("init", out, *words)[0] == 0
    config = yaml.safe_load(out.read_text())
    assert config["model"]["path"] == "./roberta"
    assert config["task"]["data"] == "./fever.jsonl"
    assert "--replace" in run("init", out, *words)[2]
    out = tmp_path / "other.yaml"
    assert "not tied to one model" in run("init", out, "--preset", "laser-rmt")[2]
    assert "did you mean" in run("init", out, "--preset", "roberta-fevr")[2]
    assert not out.exists()


def _scores(right: int, n: int):
    examples = [Example(f"e{i}", f"g{i}", "q", "a") for i in range(n)]
    outcomes = [Outcome(e.id, e.group, float(i < right), -1.0, "x") for i, e in enumerate(examples)]
    return summarise(outcomes, examples)


def test_figures_are_checked_by_wilsons_interval():
    preset = get_preset("gptj-counterfact")
    before, after = check_published(
        preset, {"baseline": _scores(131, 1000), "cut": _scores(400, 1000)}
    )
    assert before.agrees and not after.agrees
    assert before.found == pytest.approx(13.1)
    # Wilson 95 %: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n), by hand for 131 of 1000.
    assert before.low == pytest.approx(11.15, abs=0.01)
    assert before.high == pytest.approx(15.33, abs=0.01)
    assert "OUTSIDE" in after.sentence()
    (only,) = check_published(preset, {"baseline": _scores(131, 1000)})
    assert only.side == "before"
    assert check_published(get_preset("laser-rmt"), {"baseline": _scores(1, 2)}) == []


@pytest.fixture
def known(monkeypatch):
    """A preset of the demo's model and questions, in the place of one that is 6 GB large."""
    from dataclasses import replace

    from search import presets

    small = replace(
        get_preset("gptj-counterfact"),
        name="demo-cut",
        model=str(DEMO / "model"),
        dtype="auto",
        task="jsonl",
        scoring="default",
        interventions=("2.fc_in=0.05",),
    )
    monkeypatch.setattr(presets, "PRESETS", (*presets.PRESETS, small))
    return small


def test_evaluate_says_the_published_figures(known, run, tmp_path):
    data = tmp_path / "q.jsonl"
    lines = (DEMO / "questions.jsonl").read_text().splitlines(keepends=True)
    data.write_text("".join(lines[:60]))
    words = ("--preset", "demo-cut", "--data", data, "--factors", tmp_path / "factors")
    code, said, error = run("evaluate", *words)
    assert code == 0, error
    assert "published 13.1 to 24.0 %" in said
    assert said.count("95 % interval") >= 2
    found = json.loads(run("evaluate", *words, "--json")[1])
    assert list(found["scores"]) == ["baseline", "2.fc_in=0.05"]
    assert [check["published"] for check in found["checks"]] == [13.1, 24.0]
    assert found["scores"]["baseline"]["n"] == 48, "the last 80 %, as the paper"
    for option in ("--task=jsonl", "--intervention=1.fc_in=0.1", "--split=all"):
        code, _, error = run("evaluate", *words, option)
        assert code == 2
        assert "both define the evaluation" in error
    assert "give a model and a task" in run("evaluate", DEMO / "model")[2]


def test_cut_writes_the_published_cut(known, run, tmp_path):
    words = ("cut", "--preset", "demo-cut", "--format", "recipe", "--no-verify")
    code, said, error = run(*words, "--out", tmp_path / "out")
    assert code == 0, error
    assert "2.fc_in=0.05" in said
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"the interventions were published ({known.about})" in card
    assert (
        "use only one" in run(*words, "--out", tmp_path / "n", "--intervention", "1.fc_in=0.1")[2]
    )
    composed = ("cut", "--preset", "gptj-counterfact-composition", "--out", tmp_path / "n")
    assert "was not published" in run(*composed)[2]
    assert "give a model" in run("cut", "--intervention", "1.fc_in=0.1", "--out", tmp_path / "n")[2]
