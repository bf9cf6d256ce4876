"""Every command in README.md and docs/*.md is one that the program, a script or a test has.

What is printed is read from fenced `sh` blocks, indented blocks and code spans. Each is checked
against the program's own parsers, and scripts against the arguments in their source. Nothing runs
here: benchmarks/docs_commands.py runs them, and has a rule for each.
"""

import argparse
import ast
import contextlib
import importlib
import importlib.metadata
import importlib.util
import re
import shlex
import sys
from pathlib import Path

import click
import pytest
import yaml
from typer.main import get_command

from cluster.cli import app
from search.config import StudyConfig, parse_config
from search.cuts.composition import Composition
from search.overrides import apply_overrides
from search.weights.selection import read_composition

ROOT = Path(__file__).parents[2]


def the_script():
    path = ROOT / "benchmarks" / "docs_commands.py"
    spec = importlib.util.spec_from_file_location("docs_commands", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = the_script()
PAGES = SCRIPT.pages()
SHELL, OTHERS = SCRIPT.SHELL, SCRIPT.OTHERS
blocks, begins_with_program = SCRIPT.blocks, SCRIPT.begins_with_program
without_settings = SCRIPT.without_settings

OPTIONS_OF_OTHERS = {
    "--signal": "sbatch",
    "--requeue": "sbatch",
    "--no-kill": "srun",
    "--list": "benchmarks/paper/repeat.py",
    "--pdb": "pytest",
}
NO_COMMANDS = (
    "tasks/     what a model",
    "DIR/3f/3f9c",
    "FROM rayproject/ray",
    "We know that Jeremy",
)
"""How indented blocks begin that show a layout, a Dockerfile or a text."""

NUMBERS = {"N": "1", "SEED": "1", "LABEL": "first", "COLUMN": "relation", "F": "factored"}
"""Placeholders whose place has a type, or that must be there; all others are folders and files."""


def main_command():
    return get_command(app)


def joined(text):
    """Commands, each on one line; without the bodies of here-documents."""
    return [command.partition("<<'")[0].strip() for command in SCRIPT.commands_of(text)]


def commands_of(page):
    """The commands of a page's blocks, in order, and those of its spans."""
    fenced, indented, spans = blocks(page)
    lines = [line for block in fenced for line in joined(block)]
    for block in indented:
        kind = kind_of(block)
        assert kind, (
            f"{page.name}: no command, study.yaml or Python that this test knows begins "
            f"{block.strip().splitlines()[0]!r}; add its program to the tables of {__name__}"
        )
        lines += joined(block) if kind == "shell" else []
    inline, before = [], ""
    for printed in spans:
        span = printed
        if span.startswith("… ") and before:
            word = span.split()[1]
            folder = f"{before.rpartition('/')[0]}/" if word.endswith(".py") else f"{before} "
            span = folder + span.removeprefix("… ")
        if begins_with_program(span) or " --" in span or span.startswith("--"):
            inline.append(span)
        if found := re.match(r"python \S+\.py", span):
            before = found[0]
    return lines, inline


def kind_of(block):
    """shell, yaml, python or text; empty if it is none of these."""
    if block.startswith(NO_COMMANDS):
        return "text"
    if all(begins_with_program(line) for line in joined(block)):
        return "shell"
    try:
        data = yaml.safe_load(block)
        if isinstance(data, dict) and set(data) <= set(StudyConfig.model_fields):
            return "yaml"
    except yaml.YAMLError:
        pass
    try:
        compile(block, "a page", "exec")
        return "python"
    except SyntaxError:
        return ""


def check(line, pytestconfig):
    """Fail if the program, the script or an option of `line` does not exist."""
    line = re.sub(r"\[(-[^\]]*?)\]", r"\1", line).replace("…", "")
    line = line.replace(" --intervention ...", "")
    if line.startswith("for "):  # a loop of the shell alone
        return
    line = re.sub(r"\b([a-z]+)(\|[a-z]+)+", r"\1", line)  # the first of several
    line = re.sub(r"(?<!\S)> \S+", "", line)  # where the output goes
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
    lexer.whitespace_split, lexer.commenters = True, "#"
    part = []
    for word in [*lexer, ";"]:
        if set(word) <= set("&|;<>") and word:
            check_words(without_settings(part), pytestconfig)
            part = []
        else:
            part.append(word)


def check_words(words, pytestconfig):
    if not words:
        return
    name = words[0].removeprefix(".venv/bin/")
    if name == "laser-search":
        check_program(words[1:])
    elif name in {"python", "python3"}:
        check_python(words[1:], pytestconfig)
    elif name.startswith("--"):
        check_option(name, pytestconfig)
    elif name in main_command().commands:
        check_options(name, words[1:])
    elif name == "pip":
        check_extras(words)
    else:
        assert name in SHELL | OTHERS, f"nothing here knows {shlex.join(words)!r}"
    for word in words[1:]:  # what kubectl and ray hand on
        if "laser-search " in word:
            check(word.partition("=token ")[2] or word, pytestconfig)
    if name == "kubectl" and "--" in words:
        check_words(words[words.index("--") + 1 :], pytestconfig)


def check_program(words):
    """The program's own parser takes `words`; a command named alone is no call of it."""
    group = main_command()
    if not words or words == ["--help"]:
        return
    if len(words) == 1 and (words[0] in group.commands or words[0] in options_of(group)):
        return
    command, rest = group, list(words)
    context = click.Context(group, info_name="laser-search")
    while isinstance(command, click.Group):
        assert rest[0] in command.commands, f"there is no command laser-search {' '.join(words)}"
        command, rest = command.commands[rest[0]], rest[1:]
        context = click.Context(command, info_name=command.name, parent=context)
    rest = [NUMBERS.get(word, word) for word in rest]
    try:
        with command.make_context(command.name, rest, parent=context.parent) as found:
            values = found.params
    except click.UsageError as error:
        raise AssertionError(
            f"laser-search {shlex.join(words)}: {error.format_message()}"
        ) from None
    for text in values.get("intervention") or ():
        read_composition([text], []) if "*" not in text else Composition.parse(
            [text.replace("*", "0")]
        )
    for text in values.get("overrides") or ():
        data = {"model": {"path": "x"}, "task": {"name": "jsonl"}}
        apply_overrides(data, [text])
        parse_config(data, "a page")


def check_options(name, words):
    """Options of a command that is named without its arguments: `decompose --max-rho 0.2`."""
    command = main_command().commands[name]
    for word in words:
        if word.startswith("--"):
            assert word in options_of(command), f"{name} has no option {word}"


def options_of(command):
    return {option for one in command.params for option in (*one.opts, *one.secondary_opts)}


def check_option(option, pytestconfig):
    """An option that stands alone is one of some command, of ours or of those that we name."""
    known = set(OPTIONS_OF_OTHERS)
    for command in main_command().commands.values():
        several = command.commands.values() if isinstance(command, click.Group) else [command]
        known |= {name for one in several for name in options_of(one)}
    option = option.partition("=")[0]
    if option in known:
        return
    scripts = [*(ROOT / "benchmarks").rglob("*.py"), ROOT / "search" / "demo" / "train.py"]
    texts = " ".join(path.read_text(encoding="utf-8") for path in scripts)
    ours = (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8")
    assert f'"{option}"' in texts + ours, f"no command has the option {option}"


def check_python(words, pytestconfig):
    if words[:2] == ["-m", "pytest"]:
        _, unknown = pytestconfig._parser.parse_known_and_unknown_args(
            [NUMBERS.get(w, w).replace("=SEED", "=1") for w in words[2:]]
        )
        assert not [word for word in unknown if word.startswith("-")], unknown
        return
    if words[0] == "-m":
        assert importlib.util.find_spec(words[1]), f"there is no module {words[1]}"
        path = importlib.util.find_spec(words[1]).origin
        words = [path, *words[2:]]
    if words[0].endswith("venv/__main__.py") or (len(words) == 1 and "laser_search" in words[0]):
        return
    path = ROOT / words[0]
    assert path.is_file(), f"there is no script {words[0]}"
    parser = parser_of(path)
    try:
        parser.parse_args([NUMBERS.get(word, word) for word in words[1:]])
    except SystemExit:
        raise AssertionError(f"python {shlex.join(words)}: {parser.format_usage()}") from None


def parser_of(path):
    """The script's parser of arguments, read from its source: nothing of it runs."""
    parser = argparse.ArgumentParser(prog=path.name)
    types = {"int": int, "float": float}
    source = path.read_text(encoding="utf-8")
    several = "add_subparsers(" in source  # whose arguments are all taken together here
    if several:
        parser.add_argument("command")
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument"):
            continue
        settings = {}
        for keyword in node.keywords:
            value = keyword.value
            if keyword.arg == "type" and isinstance(value, ast.Name) and value.id in types:
                settings["type"] = types[value.id]
            elif keyword.arg in {"choices", "action", "nargs", "required"}:
                with contextlib.suppress(ValueError):  # choices that a module names
                    settings[keyword.arg] = ast.literal_eval(value)
        if several:
            settings.pop("required", None)
        parser.add_argument(*map(ast.literal_eval, node.args), **settings)
    return parser


def check_extras(words):
    known = set(importlib.metadata.metadata("laser-search").get_all("Provides-Extra"))
    for extra in re.findall(r"(?:laser-search|\.)\[([\w,-]+)\]", " ".join(words)):
        assert set(extra.split(",")) <= known, f"there is no extra {extra}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_exists_with_its_options(page, pytestconfig):
    lines, inline = commands_of(page)
    for line in [*lines, *inline]:
        check(line, pytestconfig)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_key_and_name_exists(page):
    """Keys of study.yaml, in blocks and spans, and what `search.x.y` names in the packages."""
    fenced, indented, spans = blocks(page)
    texts = [block for block in indented if kind_of(block) == "yaml"]
    texts += [
        body
        for block in fenced
        for body in re.findall(r"\.yaml <<'(?:EOF)'\n(.*?)^EOF$", block, re.S | re.M)
    ]
    for text in texts:
        base = {"model": {"path": "x"}, "task": {"name": "jsonl"}}
        data = yaml.safe_load(text)
        if "tasks" in data:
            del base["task"]
        parse_config(base | data, page.name)
    for span in spans:
        name = span.partition(":")[0].split(" ")[0]
        if re.fullmatch(r"(model|tasks?|split|space|search|cluster|reuse)(\.\w+)+", name):
            assert is_key(name) or is_importable(name), f"{page.name}: nothing is called {name}"
    for block in indented:
        for line in joined(block) if kind_of(block) == "python" else []:
            if line.startswith(("from ", "import ")):
                exec(line, {})


def is_key(name):
    schema = StudyConfig.model_json_schema()
    node = schema
    for part in name.split("."):
        found = [node, *node.get("anyOf", ())]
        found += [one["items"] for one in found if "items" in one]
        found = [
            schema["$defs"][one["$ref"].rpartition("/")[2]] if "$ref" in one else one
            for one in found
        ]
        nested = [x for one in found for x in one.get("anyOf", ())]
        found += [schema["$defs"][x["$ref"].rpartition("/")[2]] for x in nested if "$ref" in x]
        node = next(
            (one["properties"][part] for one in found if part in one.get("properties", {})), None
        )
        if node is None:
            return False
    return True


def is_importable(name):
    module, _, last = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), last) or bool(
            importlib.util.find_spec(name)
        )
    except ImportError:
        return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_script_runs_every_command_or_says_why_not(page):
    for command in SCRIPT.printed(page):
        rule = SCRIPT.rule_of(page, command)
        assert rule is not None, (
            f"{page.name} prints {command!r}; add what stands in for its parts, or why it does not "
            "run, to the RULES of benchmarks/docs_commands.py"
        )
        for word in rule.swaps[::2]:
            several = sum(command.startswith(rule.start) for command in SCRIPT.printed(page)) > 1
            assert word in command or several, f"{command!r} has no {word!r} to stand in for"


def test_no_rule_is_of_a_command_that_is_gone():
    used = {id(SCRIPT.rule_of(page, command)) for page in PAGES for command in SCRIPT.printed(page)}
    rules = [(name, rule) for name, found in SCRIPT.RULES.items() for rule in found]
    assert [f"{name}: {rule.start}" for name, rule in rules if id(rule) not in used] == []
