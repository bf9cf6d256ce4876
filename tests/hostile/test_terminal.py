"""What came from outside moves no terminal, begins no line and becomes no option or key."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
import unicodedata

import pytest
import yaml
from rich.table import Table
from rich.text import Text

from cluster.launch import render
from cluster.launch.request import Request, read_options
from search.printable_output import PrintableStream
from search.study.identity import Identity
from search.terminal import Terminal
from tasks.errors import InputError
from tasks.printable import printable

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp\x7f\u2028\ud83d\U000e0041\r"


def harmless(text):
    allowed = "\n\t"
    return all(c in allowed or unicodedata.category(c) not in ("Cc", "Cs", "Zl") for c in text)


def test_every_control_is_written_out_as_json_writes_it():
    shown = printable(EVIL)
    assert harmless(shown) and shown.isprintable()
    assert json.loads(f'"{shown}"').encode("utf-16", "surrogatepass") == EVIL.encode(
        "utf-16", "surrogatepass"
    )
    assert printable("Größe 日本 🙂 a\u200db\u00a0c") == "Größe 日本 🙂 a\u200db\u00a0c"
    assert printable("a\nb\tc") == "a\\nb\\tc" and printable("a\nb\tc", lines=True) == "a\nb\tc"
    assert printable(printable(EVIL)) == printable(EVIL)


def test_a_stream_shows_text_and_writes_out_what_its_encoding_lacks():
    raw = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    stream = PrintableStream(raw)
    assert stream.write("ö \x1b[1m\n") == 7
    assert raw.buffer.getvalue() == b"\\xf6 \\u001b[1m\n"
    with pytest.raises(TypeError):
        stream.write(b"bytes")


def test_a_console_keeps_its_own_codes_alone():
    out = io.StringIO()
    console = Terminal(file=out, force_terminal=True, width=200, markup=False, emoji=False)
    table = Table(EVIL)
    table.add_row(Text(EVIL, style="bold"))
    console.print(table)
    console.print(EVIL, style="yellow")
    own = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    assert "\x1b[" in out.getvalue() and harmless(own) and "owned" in own


def test_json_stays_the_same_value(monkeypatch, capsys):
    from search.printable_output import printable_output

    value = {EVIL[:-5]: ["ö", "\x9b"]}
    with printable_output():
        print(json.dumps(value, ensure_ascii=False))
    out = capsys.readouterr().out
    assert harmless(out) and json.loads(out) == value


@pytest.fixture
def hostile_study(tmp_path):
    Identity("s" * 8, "2026\x1b[2J", {"torch": EVIL[:8]}, *"wces").write(tmp_path)
    data = {"model": {"path": "m\x1b[2J"}, "task": {"name": "jsonl"}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(data))
    logs = tmp_path / "logs"
    logs.mkdir()
    line = {"time": 1.0, "event": f"failed{EVIL}", "error": f"KeyError: {EVIL}\n2026 w done"}
    broken = ["[]", "3", "null", '{"time": "x", "event": 1}', '{"event": "x"}', "{", "[" * 100_000]
    broken += ['{"time": 1e400, "event": "x"}', '{"time": NaN, "event": "x"}']
    (logs / "worker-h\x1b[2J-1.jsonl").write_text("\n".join([json.dumps(line), *broken]) + "\n")
    (logs / "driver.jsonl").write_text(json.dumps({"event": "end", "reason": EVIL}) + "\n")
    return tmp_path


@pytest.mark.parametrize(
    "words", [("logs",), ("logs", "--json"), ("status",), ("status", "--json"), ("watch", "--once")]
)
def test_commands_on_a_study(words, run, hostile_study):
    code, out, said = run(words[0], hostile_study, *words[1:])
    assert code == 0 and harmless(out) and harmless(said), said
    assert out.strip(), "nothing printed is harmless, but not what was asked for"
    if words == ("logs",):
        assert len(out.splitlines()) == 1, "one good line, and a reason begins no line of its own"


def test_error_sentences(run, tmp_path):
    for words in (
        ("matrices", f"./no{EVIL[:-1]}such"),
        ("status", f"no\x1b[2J{tmp_path.name}"),
        ("evaluate", "x", "--task", "no\x1b[2Jne"),
    ):
        code, _, said = run(*words)
        assert code == 2 and harmless(said)


def test_answers_and_questions(run, model, tmp_path):
    path = tmp_path / "q.jsonl"
    rows = [
        {"prompt": f"Question\x1b[2J {i}", "answer": "a\x1b]0;x\x07", "kind\x1b[1m": i % 2}
        for i in range(8)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, said = run("evaluate", model, "--task", "jsonl", "--data", path)
    assert code == 0 and harmless(out) and harmless(said), said


NAMES = [
    *("-x.sh", "--wrap=id", "a\nb: c", 'a"b', "a'b", "$(touch x)", "`id`", "a b;c", "a\\b", "&a"),
    *("*a", "{{ 7*7 }}", "{% raw %}", "a#b", "#!x", "a: b", "!!python", "ü", "a\tb", "%YAML"),
    *("a\x85b", "a\x1bb"),
]
OPTIONS = {"slurm": [], "kuberay": ["image=i", "volume=v"], "ray-up": ["hosts=10.0.0.1,10.0.0.2"]}


def make_request(platform, folder, name):
    place = folder / name
    place.mkdir()
    study = place / f"{name}.yaml"
    study.write_text("model: {path: m}\n")
    options = read_options(platform, OPTIONS[platform])
    return Request(study, str(place / name), 2, 1, 1, 120, options)


@pytest.mark.parametrize("name", NAMES)
def test_hostile_names_in_yaml(name, tmp_path):
    plain = {}
    for platform in ("kuberay", "ray-up"):
        for called in ("plain", name):
            (folder := tmp_path / platform / called.encode().hex()).mkdir(parents=True)
            request = make_request(platform, folder, called)
            text = render.render(platform, request, folder / called / "b")
            plain.setdefault(platform, []).append(list(yaml.safe_load_all(text)))
            if platform == "ray-up":
                (found,) = yaml.safe_load_all(text)
                assert found["file_mounts"]["~/laser-search/study.yaml"] == str(request.study)
    for first, second in plain.values():
        assert [sorted(part) for part in first] == [sorted(part) for part in second]


@pytest.mark.parametrize("name", NAMES)
def test_hostile_names_in_a_slurm_script(name, tmp_path):
    request = make_request("slurm", tmp_path, name)
    text = render.render("slurm", request)
    assert (
        subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True).returncode == 0
    )
    line = text[text.rindex("laser-search launch ") :].split(" --address ")[0]
    assert shlex.split(line) == [
        *("laser-search", "launch", str(request.study), "--out", request.out)
    ]
    headers = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    assert len(headers) == 9


@pytest.mark.parametrize("platform", OPTIONS)
def test_a_file_that_begins_with_a_dash_is_no_option(platform, tmp_path, monkeypatch):
    from pathlib import Path

    request = make_request(platform, tmp_path, "s")
    monkeypatch.chdir(tmp_path)
    lines = render.write(platform, request, Path("-x.yaml"))
    words = [shlex.split(line) for line in lines]
    used = [word for line in words for word in line if word.endswith("x.yaml")]
    assert used and all(not word.startswith("-") for word in used)


def test_sbatch_is_given_no_option(tmp_path, monkeypatch):
    from pathlib import Path

    sbatch = tmp_path / "sbatch"
    sbatch.write_text(f'#!{sys.executable}\nimport sys; print("given", sys.argv[1:])\n')
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    said = render.submit(Path("--wrap=id"))
    assert said == f"given {[str(tmp_path / '--wrap=id')]}"


def test_a_number_that_is_none(tmp_path):
    with pytest.raises(InputError, match="retries"):
        read_options("kuberay", ["image=i", "volume=v", "retries=*x"])
