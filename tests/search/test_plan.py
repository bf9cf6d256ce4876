"""What a study's file says about its questions reaches the plan, and `evaluate` the same."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.cli import app
from search.config import parse_config
from search.demo.study import HERE
from search.plan import data_notices, make_plan, open_asked, open_task
from search.study.identity import digest_examples, digest_settings
from tasks.base import Example
from tasks.errors import InputError
from tasks.paper import PaperScoring
from tasks.parts import sizes_text

ROWS = [
    {"claim": f"{subject} is {what}.", "label": label}
    for subject, label in (("Rome", 1), ("Oslo", 0), ("Bern", 1), ("Kyiv", 0), ("Riga", 1))
    for what in ("large", "old")
]


@pytest.fixture
def claims(tmp_path: Path) -> Path:
    path = tmp_path / "fever.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def _config(claims: Path, task: object = None, split: object = None):
    return parse_config(
        {
            "model": {"path": str(HERE / "model")},
            "task": {"name": "fever", "data": str(claims), **(task or {})},
            "split": split or {},
        },
        "test",
    )


def test_the_papers_protocol_and_scoring(claims: Path) -> None:
    config = _config(claims, {"scoring": "paper"}, {"protocol": "paper", "validation": 0.3})
    plan = make_plan(config)
    assert [e.prompt for e in plan.split.validation] == [row["claim"] for row in ROWS[:3]]
    assert isinstance(plan.task, PaperScoring)
    default = make_plan(_config(claims, None, {"validation": 0.3}))
    assert not isinstance(default.task, PaperScoring)
    assert default.split.validation != plan.split.validation
    assert plan.notices == []


def _several(*tasks: dict[str, object]):
    return parse_config({"model": {"path": str(HERE / "model")}, "tasks": list(tasks)}, "test")


def test_several_tasks_are_planned_side_by_side(claims: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": f"Anna lives in {n}."}) + "\n" for n in range(9)))
    wiki = {"name": "perplexity", "data": str(texts), "weight": 0, "floor": {"worse_by": 0.01}}
    plan = make_plan(_several({"name": "fever", "label": "claims", "data": str(claims)}, wiki))
    assert plan.objective.metrics == {"claims": "accuracy", "perplexity": "perplexity"}
    for side in (plan.split.validation, plan.split.test):
        assert {e.task for e in side} == {"claims", "perplexity"}
        assert all(e.id.startswith(f"{e.task}/") for e in side)
    alone = make_plan(_config(claims))
    assert [e.id for e in plan.split.test if e.task == "claims"] == [
        f"claims/{e.id}" for e in alone.split.test
    ]
    changed = digest_examples(plan.split.validation[:-1], plan.split.test)
    assert digest_examples(plan.split.validation, plan.split.test) != changed


def test_weights_and_floors_are_settings_and_data_may_move(claims: Path) -> None:
    task = {"name": "fever", "data": str(claims)}
    digest = digest_settings(_several(task))
    assert digest_settings(_several({**task, "data": "elsewhere"})) == digest
    for change in ({"weight": 2}, {"floor": {"limit": 0.5}}, {"label": "x"}, {"scoring": "paper"}):
        assert digest_settings(_several({**task, **change})) != digest


def test_a_task_that_the_head_cannot_answer_is_named_before_anything_loads(claims: Path) -> None:
    absent = {"name": "fever", "data": str(claims.with_name("absent.jsonl"))}
    with pytest.raises(InputError, match="task 'glue:cola' cannot be answered by a masked head"):
        open_asked(_several(absent, {"name": "glue:cola"}), "masked")


def test_options_of_the_harness_are_refused_elsewhere(claims: Path) -> None:
    with pytest.raises(InputError, match="num_fewshot 2 does not apply to task 'fever'"):
        make_plan(_config(claims, {"num_fewshot": 2}))
    with pytest.raises(InputError, match="cannot be answered by a classifier head"):
        open_task(_config(claims).task, "classifier")


def test_repeated_and_contradictory_questions_are_counted() -> None:
    def example(number: int, answer: str) -> Example:
        return Example(f"e{number}", "g", "one question", answer)

    found = data_notices([example(0, "a"), example(1, "a"), example(2, "b")])
    assert found == [
        "1 of 3 examples repeat another one exactly",
        "3 of 3 examples share their question with one that has another answer",
    ]


def test_evaluate_says_what_is_doubtful(tmp_path: Path) -> None:
    row = {"prompt": "Anna lives in", "answer": "Rome"}
    long = {"prompt": "Anna lives in " * 200, "answer": "Rome"}
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in (row, row, long)))
    options = ["--task", "jsonl", "--data", str(path), "--factors", str(tmp_path / "factors")]
    run = CliRunner().invoke(app, ["evaluate", str(HERE / "model"), *options])
    assert run.exit_code == 0, run.output
    assert "1 of 3 examples repeat another one exactly" in run.output
    assert "1 prompts were truncated" in run.output
    assert "top-5" in run.output
    assert "questions: 3 in 2 groups" in run.output
    assert "holds 2 of 3 questions, 67%" in " ".join(run.output.split())


def test_evaluate_says_how_large_both_parts_are(claims: Path, tmp_path: Path) -> None:
    words = ["evaluate", HERE / "model", "--task", "fever", "--data", claims, "--json"]
    words += ["--split", "validation", "--factors", tmp_path / "factors"]
    run = CliRunner().invoke(app, list(map(str, words)))
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)
    assert [(s["part"], s["questions"], s["groups"]) for s in found["sizes"]] == [
        ("validation", 2, 2),
        ("test", 8, 8),
    ]


def test_a_plan_counts_groups_and_warns_of_a_large_one(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"Anna {n} lives in", "answer": "Rome", "group": "nan" if n > 5 else f"g{n}"}
        for n in range(40)
    ]
    data = tmp_path / "q.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = parse_config(
        {"model": {"path": str(HERE / "model")}, "task": {"name": "jsonl", "data": str(data)}},
        "test",
    )
    plan = make_plan(config)
    parts = {size.part: (size.questions, size.groups) for size in plan.sizes}
    assert {sum(pair) for pair in zip(*parts.values(), strict=True)} == {40, 7}
    (said,) = plan.notices
    assert "the group 'nan' (such as 'Anna " in said
    assert "holds 34 of " in said
    assert "confirm" not in sizes_text(plan.sizes)
