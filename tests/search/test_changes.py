"""What changed between baseline and winner, from a study's folder alone."""

import itertools
import json
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

from cluster.cli import app
from search.config import write_config
from search.report.changes import Share, find_changes, print_changes
from search.study.outcomes import Evaluation
from search.study.questions import FILE, write_questions
from search.study.study_record import CONFIG, StudyRecord
from tasks.base import Example, Outcome
from tasks.datasets import Split
from tasks.errors import InputError

KINDS = ("rare", "rare", "common", "common", "common")


def _examples(part):
    return [
        Example(
            f"{part}{n}", f"{part}g{n}", f"Question {n}?", f"a{n}", columns={"kind": kind, "n": n}
        )
        for n, kind in enumerate(KINDS)
    ]


def _evaluation(study, job):
    """The baseline knows 2 and 3; any cut fixes 0, 1 and 4 and breaks 2."""
    known = {0, 1, 3, 4} if job.effect else {2, 3}
    outcomes = tuple(
        Outcome(f"{job.part}{n}", f"{job.part}g{n}", float(n in known), -1.0, f"says {job.effect}")
        for n in range(5)
    )
    score = len(known) / 5
    return Evaluation(
        *(job.name, study.identity.study_id, str(job.composition), job.effect, job.part),
        *(score, 1.0, {}, outcomes),
    )


@pytest.fixture
def folder(tmp_path: Path, make_config, open_study):
    folder = tmp_path / "study"
    config = make_config(trials=3)
    study = open_study(folder, config)
    for _ in itertools.count():
        job = study.next_job()
        if job is None:
            break
        study.finish(job, _evaluation(study, job))
    study.identity.write(folder)
    write_config(config, folder / CONFIG)
    write_questions(folder, Split(_examples("validation"), _examples("test")))
    return folder


def test_fixed_and_broken_by_a_column(folder) -> None:
    found = find_changes(StudyRecord.read(folder), None, "kind")
    assert found.part == "test"
    assert [change.example_id for change in found.fixed] == ["test0", "test1", "test4"]
    assert [change.example_id for change in found.broken] == ["test2"]
    assert found.broken[0].prompt == "Question 2?"
    assert (found.broken[0].answer, found.broken[0].before) == ("a2", "says ")
    assert found.broken[0].after.startswith("says ")
    assert found.shares == {
        "common": Share(3, pytest.approx(2 / 3), pytest.approx(2 / 3), 1, 1),
        "rare": Share(2, 0.0, 1.0, 2, 0),
    }
    assert (found.comparison.fixed, found.comparison.broken) == (3, 1)


def test_validation_and_any_trial(folder) -> None:
    record = StudyRecord.read(folder)
    found = find_changes(record, "validation", None, trial=record.trials[-1].number)
    assert found.fixed[0].example_id == "validation0"
    assert found.shares == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"by": "kinds"}, "'kinds' is not in the data; did you mean 'kind'"),
        ({"trial": 99}, "no outcomes of a trial 99"),
    ],
)
def test_what_is_not_there_is_named(folder, options, words) -> None:
    with pytest.raises(InputError, match=words):
        find_changes(StudyRecord.read(folder), None, **{"by": None, **options})


def test_a_study_without_its_questions(folder) -> None:
    (folder / FILE).unlink()
    with pytest.raises(InputError, match="laser-search resume"):
        find_changes(StudyRecord.read(folder), None, None)


def test_the_command_prints_text_or_json(folder) -> None:
    run = CliRunner().invoke(app, ["compare", str(folder), "--by", "kind", "--examples", "1"])
    assert run.exit_code == 0, run.output
    assert "3 fixed, 1 broken of 5 questions" in run.output
    assert "fixed test0: 'Question 0?' is 'a0'" in run.output
    assert "and 2 more fixed" in run.output
    run = CliRunner().invoke(app, ["compare", str(folder), "--part", "validation", "--json"])
    assert [change["example_id"] for change in json.loads(run.output)["broken"]] == ["validation2"]


def test_prompts_are_printed_as_they_are(folder) -> None:
    """Square brackets mean something to rich."""
    table = pd.read_parquet(folder / FILE)
    table["prompt"] = "[bold]x[/nothing]"
    table.to_parquet(folder / FILE)
    console = Console(record=True, width=200)
    print_changes(console, find_changes(StudyRecord.read(folder), None, None), 1)
    assert "'[bold]x[/nothing]'" in console.export_text()


def test_one_line_of_pandas_reads_outcomes_beside_questions(folder) -> None:
    """The lines that docs/outcomes.md shows."""
    text = Path(__file__).parents[2] / "docs" / "outcomes.md"
    lines = [line.strip() for line in text.read_text().splitlines() if "read_parquet" in line]
    pandas_lines = [line for line in lines if line.startswith(("outcomes =", "questions ="))]
    assert len(pandas_lines) == 2
    names: dict[str, object] = {"pandas": pd}
    for line in pandas_lines:
        exec(line.replace("my-study", str(folder)), names)
    outcomes, questions = names["outcomes"], names["questions"]
    both = outcomes.merge(questions, on="example_id")
    assert len(both) == len(outcomes) == 5 * outcomes["evaluation"].nunique()
    scores = both[both["evaluation"] == "baseline-test"].groupby("kind")["score"].mean()
    assert scores.to_dict() == {"common": pytest.approx(2 / 3), "rare": 0.0}


def test_columns_of_mixed_types_and_taken_names(tmp_path: Path) -> None:
    columns = ({"group": "x", "size": 1}, {"size": "large"})
    examples = [Example(f"e{n}", "g", "q", "a", columns=c) for n, c in enumerate(columns)]
    write_questions(tmp_path, Split(examples[:1], examples[1:]))
    table = pd.read_parquet(tmp_path / FILE).set_index("example_id")
    assert table["size"].tolist() == ["1", "large"]
    assert table.loc["e0", "data_group"] == "x"
    assert table["group"].tolist() == ["g", "g"]
