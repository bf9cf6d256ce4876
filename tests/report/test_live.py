"""The live display, watch, dashboard and init."""

import io
import json
import re
import threading
import time
import urllib.error
import urllib.request

import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from cluster.cli import app
from search.config import read_config
from search.demo.study import HERE
from search.report.dashboard import ReadOnlyStorage, open_server
from search.report.live import find_workers, plain, screen
from search.report.new_study import Answers, study_text
from search.report.watch import follow, watch
from search.study.driver_log import note_begin
from search.study.storages import open_storage
from search.study.study_record import StudyRecord
from tasks.errors import InputError


def _console(*, terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=120, markup=False)


def _log(folder, name, *events):
    (folder / "logs").mkdir(exist_ok=True)
    lines = [json.dumps(event) for event in events]
    (folder / "logs" / f"worker-{name}.jsonl").write_text("\n".join(lines) + "\n")


def test_the_screen_shows_progress_best_recent_workers_and_failures(hostile_study):
    now = time.time()
    _log(hostile_study.folder, "a-1", {"time": now - 9, "event": "setup"},
         {"time": now - 5, "event": "start", "job": "trial-00007"})  # fmt: skip
    _log(hostile_study.folder, "b-2", {"time": now - 2, "event": "done", "job": "trial-00008"})
    _log(hostile_study.folder, "c-3", {"time": now - 9999, "event": "start", "job": "old"})
    console = _console(terminal=False)
    console.print(screen(hostile_study.summary, hostile_study.folder))
    text = console.file.getvalue()
    for words in ("60/60", "baseline", "best", "1x ValueError: <script>", "trial-00007", "a-1"):
        assert words in text, words
    assert "waits" in text and "c-3" not in text
    latest = hostile_study.summary.recent
    assert [t.finished for t in latest] == sorted((t.finished for t in latest), reverse=True)
    assert str(latest[0].number) in text


def test_workers_of_a_killed_run_are_not_listed_beside_the_next_ones(tmp_path):
    now = time.time()
    _log(tmp_path, "old-1", {"time": now - 60, "event": "start", "job": "trial-00003"})
    assert [worker.name for worker in find_workers(tmp_path)] == ["old-1"]
    note_begin(tmp_path)
    assert find_workers(tmp_path) == [], "the next driver has begun, and no worker of it yet"
    _log(tmp_path, "new-1", {"time": now + 1, "event": "start", "job": "trial-00003"})
    assert [worker.name for worker in find_workers(tmp_path, now + 2)] == ["new-1"]


def test_a_log_that_is_being_written_is_no_worker(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "worker-x-1.jsonl").write_text('{"time": 1, "ev')
    (tmp_path / "logs" / "worker-x-2.jsonl").touch()
    assert find_workers(tmp_path) == []
    assert find_workers(tmp_path / "absent") == []


def test_following_sees_what_another_process_adds(make_study, tmp_path):
    partial = make_study(tmp_path / "study", limit=10)
    records = follow(partial.folder)
    assert next(records).summary.finished == 9
    before = next(records).summary
    storage = open_storage(partial.folder, None)
    study_id = storage.get_all_studies()[0]._study_id
    storage.create_new_trial(study_id)
    after = next(records).summary
    assert (before.running, after.running) == (before.running, before.running + 1)
    assert not next(records).is_over


@pytest.mark.parametrize("terminal", [True, False])
def test_watch_ends_with_the_study(study, terminal):
    console = _console(terminal=terminal)
    seen = watch(console, study.folder, 1.0, sleep=lambda _: pytest.fail("it is over"))
    assert seen.summary.finished == 60
    assert study.summary.best.text in console.file.getvalue()


def test_watch_looks_again_until_the_verdict_is_there(make_study, tmp_path):
    record = make_study(tmp_path / "study")
    result = record.folder / "result.json"
    text = result.read_text()
    result.unlink()
    naps = []

    def sleep(seconds):
        naps.append(seconds)
        if len(naps) == 3:
            result.write_text(text)

    watch(_console(terminal=True), record.folder, 0.5, sleep)
    assert naps == [0.5] * 3


def test_watch_for_scripts(study):
    run = CliRunner().invoke(app, ["watch", str(study.folder), "--once", "--json"])
    assert run.exit_code == 0, run.output
    found = json.loads(run.output)
    assert (found["finished"], found["asked"]) == (60, 60)
    assert found["best"] == study.summary.best.score
    run = CliRunner().invoke(app, ["watch", str(study.folder), "--once"])
    assert run.output.strip() == plain(study.summary)


@pytest.fixture
def served(hostile_study):
    pytest.importorskip("optuna_dashboard", reason="the extra dashboard is not installed")
    with open_server(hostile_study, 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server, f"http://{server.server_address[0]}:{server.server_port}"
        server.shutdown()
        thread.join()


def _get(url):
    with urllib.request.urlopen(url, timeout=30) as reply:
        return reply.read()


def test_the_dashboard_shows_trials_attributes_and_files_on_loopback_alone(served, hostile_study):
    server, url = served
    assert server.server_address[0] == "127.0.0.1"
    assert b"<html" in _get(f"{url}/dashboard").lower()
    study_id = json.loads(_get(f"{url}/api/studies"))["study_summaries"][0]["study_id"]
    detail = json.loads(_get(f"{url}/api/studies/{study_id}"))
    best = hostile_study.summary.best
    trial = next(t for t in detail["trials"] if t["number"] == best.number)
    attributes = {a["key"]: a["value"] for a in trial["user_attrs"]}
    assert best.text in attributes["composition"]
    files = {a["filename"]: a["artifact_id"] for a in detail["artifacts"]}
    assert {"report.html", "result.json", "study.yaml", "baseline-test.parquet"} <= files.keys()
    page = _get(f"{url}/artifacts/{study_id}/{files['report.html']}").decode()
    assert "Course of the search" in page


def test_nothing_can_be_changed_from_the_dashboard(served, hostile_study):
    _, url = served
    before = (hostile_study.folder / "study.journal").read_bytes()
    study_id = json.loads(_get(f"{url}/api/studies"))["study_summaries"][0]["study_id"]
    request = urllib.request.Request(f"{url}/api/studies/{study_id}", method="DELETE")
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(request, timeout=30)
    assert (hostile_study.folder / "study.journal").read_bytes() == before
    storage = ReadOnlyStorage(open_storage(hostile_study.folder, None), {})
    for name in dir(storage):
        if name.startswith(("set_", "create_", "delete_")):
            count = getattr(storage, name).__code__.co_argcount - 1
            with pytest.raises(PermissionError):
                getattr(storage, name)(*range(count))


def test_init_by_flags_writes_a_study_that_validates(tmp_path):
    path = tmp_path / "study.yaml"
    words = ["init", str(path), "--model", "./my: model #1", "--task", "sst2", "--data", "a'b.tsv"]
    run = CliRunner().invoke(app, [*words, "--matrices", "mlp, q_proj", "--trials", "7", "--json"])
    assert run.exit_code == 0, run.output
    assert json.loads(run.output) == {"study": str(path)}
    config = read_config(path)
    assert config.model.path.endswith("my: model #1")
    assert (config.task.name, config.task.data) == ("sst2", "a'b.tsv")
    assert (config.space.matrices, config.search.trials) == (["mlp", "q_proj"], 7)
    assert path.read_text().count("#") > 10
    again = CliRunner().invoke(app, words)
    assert isinstance(again.exception, InputError) and "--replace" in str(again.exception)
    assert CliRunner().invoke(app, [*words, "--replace"]).exit_code == 0


def test_init_writes_a_study_within_a_budget(tmp_path):
    path = tmp_path / "study.yaml"
    words = ["init", str(path), "--model", "gpt2", "--task", "sst2", "--kept", "0.45"]
    assert CliRunner().invoke(app, words).exit_code == 0
    space = read_config(path).space
    assert space.matrices == ["all"] and space.budget.shares == (0.45,)
    again = CliRunner().invoke(app, [*words[:-1], "1.5", "--replace"])
    assert isinstance(again.exception, InputError) and "kept" in str(again.exception)


@pytest.mark.parametrize(
    ("words", "limit"),
    [
        (["gpt2"], 0.01),
        (["gpt2", "--task", "counterfact"], 0.01),
        ([str(HERE / "model")], 0.01),
        (["gpt2", "--worse-by", "0.05"], 0.05),
        (["gpt2", "--unguarded"], None),
        (["gpt2", "--task", "sst2"], None),
        (["gpt2", "--task", "perplexity"], None),
        (["gpt2", "--kept", "0.5"], None),
        (["./bert"], None),
    ],
)
def test_init_limits_what_a_language_model_loses(tmp_path, monkeypatch, words, limit):
    monkeypatch.chdir(tmp_path)
    bert = {"model_type": "bert", "architectures": ["BertForMaskedLM"]}
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text(json.dumps(bert))
    run = CliRunner().invoke(app, ["init", "study.yaml", "--model", *words])
    assert run.exit_code == 0, run.output
    assert read_config(tmp_path / "study.yaml").guard.worse_by == limit


def test_init_asks_for_what_no_flag_says(tmp_path):
    path = tmp_path / "study.yaml"
    run = CliRunner().invoke(app, ["init", str(path)], input="gpt2\n\nmine.jsonl\n")
    assert run.exit_code == 0, run.output
    config = read_config(path)
    assert (config.model.path, config.task.name, config.task.data) == (
        "gpt2",
        "jsonl",
        "mine.jsonl",
    )


def test_init_asks_again_for_a_wrong_name_and_keeps_the_rest(tmp_path):
    path = tmp_path / "study.yaml"
    answers = ["./absent", "gpt2", "sst22", "sst2", "dev.tsv"]
    run = CliRunner().invoke(app, ["init", str(path)], input="\n".join(answers) + "\n")
    assert run.exit_code == 0, run.output
    assert "'./absent' is not a folder" in run.output and "did you mean 'sst2'" in run.output
    config = read_config(path)
    assert (config.model.path, config.task.name) == ("gpt2", "sst2")
    assert config.task.data.endswith("dev.tsv"), "data is asked for, whatever the task"


def test_init_leaves_a_tasks_own_data_alone(tmp_path):
    path = tmp_path / "study.yaml"
    run = CliRunner().invoke(app, ["init", str(path)], input="gpt2\nsst2\n\n")
    assert run.exit_code == 0, run.output
    assert read_config(path).task.data is None


def test_init_refuses_what_no_study_could_have():
    with pytest.raises(InputError, match="sst22"):
        study_text(Answers("m", task="sst22"), "study.yaml")
    with pytest.raises(InputError, match="matrices"):
        study_text(Answers("m", matrices=()), "study.yaml")


def test_keys_that_are_commented_out_are_keys(tmp_path):
    """What a user uncomments is accepted too."""
    text = study_text(Answers("m"), "study.yaml")
    lines = [
        re.sub(
            r"^(\s*)# (?=(revision|dtype|data|storage|cluster|  address|  max_concurrent):)",
            r"\1",
            x,
        )
        for x in text.splitlines()
    ]
    path = tmp_path / "s.yaml"
    path.write_text("\n".join(lines))
    assert "storage" in yaml.safe_load(path.read_text())
    config = read_config(path)
    assert (config.cluster.address, config.model.dtype) == ("auto", "bfloat16")


def test_the_record_reads_without_a_terminal(study):
    assert StudyRecord.read(study.folder).summary.recent
