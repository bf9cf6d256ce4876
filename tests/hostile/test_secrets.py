"""No password, key or token reaches a screen, a report or a file that others can read."""

from __future__ import annotations

import json
import logging
import stat

import pytest
import yaml

from cluster.launch import render
from cluster.launch.request import Request, read_options
from search.config import parse_config, write_config
from search.study.identity import Identity
from search.study.storages import open_storage
from tasks.errors import InputError
from tasks.secrets import has_secret, hide_secrets

WORD = "s3cr3t"
URLS = [
    f"postgresql://user:{WORD}@host:5432/db",
    f"postgresql://user:a@b@{WORD}@host/db",
    f"postgresql://user:{WORD}@x@host/db",
    f"postgresql://user:a/{WORD}@host/db",
    f"postgresql://user:a:{WORD}@host/db",
    f"postgresql://user:my {WORD} word@host/db",
    f"postgresql://user@host/db?password={WORD}",
    f"postgresql://user@host/db?sslmode=require&sslpassword={WORD}",
    f"mysql+pymysql://user:%40{WORD}@host/db",
    f"s3://AKIA:{WORD}@bucket/prefix",
    f"s3://bucket/prefix?secret={WORD}",
    f"https://host/x?X-Amz-Signature={WORD}&X-Amz-Date=2026",
    f"https://host/x?api_key={WORD}",
    f"https://oauth2:{WORD}@git.example/x.git",
]


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("text", ["{}", "storage '{}' cannot be opened", 'storage: "{}"\nnext: x'])
def test_none_is_shown(url, text):
    assert WORD not in hide_secrets(text.format(url))
    assert WORD not in str(InputError(text.format(url)))


def test_a_known_url_is_hidden_in_parts_too():
    url = f"postgresql://user@host/db?password=my {WORD}"
    assert hide_secrets(f"wrong password my {WORD} for user", url) == "wrong password *** for user"
    quoted = f"postgresql://user:a%40{WORD}@host/db"
    assert WORD not in hide_secrets(f"wrong: a@{WORD}", quoted)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://user@host:5432/db", "http://127.0.0.1:8080/  (Ctrl-C stops it)",
        "s3://bucket/prefix", "storage postgresql://h:5432/db does not answer: role a@b",
        "hf://datasets/a/b@main/x.parquet", "https://host/?page=2", "laser-search: a: b@c",
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(text):
    assert hide_secrets(text) == text


@pytest.mark.parametrize("url", [url for url in URLS if url.startswith(("post", "mysql"))])
def test_a_storage_that_cannot_be_opened(url, tmp_path, monkeypatch):

    def refuse(*_):
        raise RuntimeError(f"cannot connect to {url}: bad")

    monkeypatch.setattr("search.study.database.EnduringDatabase", refuse)
    with pytest.raises(InputError) as error:
        open_storage(tmp_path, url)
    assert WORD not in str(error.value)


@pytest.mark.parametrize("url", [f"nosuch://AKIA:{WORD}@bucket/p", f"http://u:{WORD}@127.0.0.1:1/"])
def test_factors_that_cannot_be_reached(url, refused, model, tmp_path):
    assert WORD not in refused("decompose", model, "--factors", url)


def config_with(url):
    return parse_config({"model": {"path": "m"}, "task": {"name": "jsonl"}, **url}, "test")


@pytest.mark.parametrize(
    "url", [{"storage": URLS[0]}, {"factors": URLS[9]}, {"factors": URLS[10]}, {"storage": URLS[6]}]
)
def test_the_frozen_study_is_private_and_the_report_hides_it(url, tmp_path):
    config = config_with(url)
    write_config(config, tmp_path / "study.yaml")
    assert stat.S_IMODE((tmp_path / "study.yaml").stat().st_mode) == 0o600
    assert WORD in (tmp_path / "study.yaml").read_text()
    from types import SimpleNamespace

    from search.report.content import _configuration

    assert WORD not in _configuration(SimpleNamespace(config=config))


def test_a_study_without_secrets_is_for_all_to_read(tmp_path):
    write_config(config_with({}), tmp_path / "study.yaml")
    assert (tmp_path / "study.yaml").stat().st_mode & 0o044


def test_logs_and_last_end_of_an_older_study(run, tmp_path):
    from search.study.driver_log import last_end, note_end

    Identity("s" * 8, "2026", {}, *"wces").write(tmp_path)
    logs = tmp_path / "logs"
    logs.mkdir()
    line = {"time": 1.0, "event": "failed", "error": f"cannot reach {URLS[1]}"}
    (logs / "worker-h-1.jsonl").write_text(json.dumps(line) + "\n")
    code, out, _ = run("logs", tmp_path)
    assert code == 0 and "cannot reach postgresql://user:***@host/db" in out
    note_end(tmp_path, f"storage {URLS[2]} is gone")
    assert WORD not in (logs / "driver.jsonl").read_text() and WORD not in last_end(tmp_path)


def test_a_warning_of_the_cache(caplog, tmp_path):
    from search.weights.factor_file import DamagedFactorsError
    from search.weights.remote import RemoteFactorCache

    cache = RemoteFactorCache(f"memory://user:{WORD}@bucket/p", folder=tmp_path)
    with caplog.at_level(logging.WARNING):
        cache._set_remote_aside(cache.path("ab" * 20), DamagedFactorsError("torn"))
    assert caplog.messages and WORD not in caplog.text


SECRET_OPTIONS = {
    "slurm": ([], (f"export PGPASSWORD={WORD}",)),
    "kuberay": (["image=i", "volume=v"], ()),
    "ray-up": ([f"install=pip install git+https://x:{WORD}@git.example/y.git"], ()),
}


@pytest.mark.parametrize("platform", SECRET_OPTIONS)
def test_a_script_with_a_secret_is_private_and_says_where_it_belongs(platform, run, tmp_path):
    words, setup = SECRET_OPTIONS[platform]
    study = tmp_path / "study.yaml"
    data = {"model": {"path": "m"}, "task": {"name": "jsonl"}}
    if platform == "kuberay":
        data["storage"] = URLS[0]
    study.write_text(yaml.safe_dump(data))
    options = [part for word in words for part in ("--option", word)]
    options += [part for line in setup for part in ("--setup", line)]
    path = tmp_path / "job.yaml"
    code, out, _ = run("launch", study, "--on", platform, "--to", path, *options)
    assert code == 0 and "holds a secret, so only you can read it; better keep it in" in out
    assert WORD in path.read_text() and WORD not in out
    assert stat.S_IMODE(path.stat().st_mode) in (0o600, 0o700)
    study.write_text(yaml.safe_dump({"model": {"path": "m"}, "task": {"name": "jsonl"}}))
    plain = [] if platform == "ray-up" else options[: len(options) - 2 * len(setup)]
    code, out, _ = run("launch", study, "--on", platform, "--to", path, *plain)
    assert code == 0 and "holds a secret" not in out and path.stat().st_mode & 0o044


def test_kuberay_takes_secrets_from_kubernetes(tmp_path):
    study = tmp_path / "study.yaml"
    study.write_text(f"storage: {URLS[0]}\n")
    options = read_options("kuberay", ["image=i", "volume=v", "secret=laser"])
    request = Request(study, str(tmp_path / "s"), options=options)
    held, job = yaml.safe_load_all(render.render("kuberay", request))
    assert held["kind"] == "Secret"
    assert held["stringData"]["study.yaml"] == study.read_text()
    cluster = job["spec"]["rayClusterSpec"]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert pods[0]["template"]["spec"]["volumes"][0]["secret"] == {
        "secretName": held["metadata"]["name"]
    }
    for pod in pods:
        (container,) = pod["template"]["spec"]["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "laser"}}]


def test_words_that_only_sound_like_it():
    assert not has_secret("tokens_per_batch: 4096\nkey: 3\nchat_template: false")
