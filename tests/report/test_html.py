"""The report: complete, self-contained, escaped, and there for studies in any state."""

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from typer.testing import CliRunner

from cluster.cli import app
from search.report.content import gather
from search.report.html import render
from search.report.text import sentence
from search.study.verdict import read_verdict

FETCHING = {"src", "href", "xlink:href", "srcset", "data", "action", "poster", "background"}
VOID = {"meta", "link", "img", "br", "hr", "input", "image", "use", "path", "rect"}


class Page(HTMLParser):
    """What is in a page: tags, what they would fetch, handlers, text, ids."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.fetched, self.handlers, self.ids = [], [], [], []
        self.words, self.within = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.within.append(tag)
        for name, value in attrs:
            if name in FETCHING:
                self.fetched.append(value)
            if name.startswith("on"):
                self.handlers.append((tag, name))
            if name == "id":
                self.ids.append(value)

    def handle_endtag(self, tag):
        if tag in self.within:
            while self.within.pop() != tag:
                pass

    def handle_data(self, data):
        if not {"script", "style"} & set(self.within):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def page(study):
    return render(study)


def test_the_verdict_and_every_section_are_there(study, page):
    found = Page(page)
    assert sentence(read_verdict(study.result), "accuracy") in found.text
    for words in (
        "Where the gains are", "The composition in the network", "Score against rank",
        "Course of the search", "What good trials share", "Calibration", "Fixed and broken",
        "saved by racing", "Environment", "max_interventions",
    ):  # fmt: skip
        assert words in found.text, words
    best = study.summary.winner
    assert best.text in found.text


def test_nothing_is_fetched_from_anywhere(page):
    fetched = Page(page).fetched
    assert fetched, "a page without a single reference would show nothing of this"
    for address in fetched:
        assert address.startswith(("#", "data:")), address
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page


def test_ids_are_unique_and_every_reference_has_its_target(page):
    ids = Page(page).ids
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r'(?:xlink:href="|[^:]href="|url\()#([^")]+)', page))
    assert wanted and wanted <= set(ids)


def test_text_from_data_and_models_stays_text(hostile_study):
    found = Page(render(hostile_study))
    assert found.tags.count("script") == 1
    assert "img" not in found.tags
    assert not found.handlers
    assert found.text.count("<script>fetch(") > 10  # shown as it is, in prompts and elsewhere
    assert "$x_1$" in found.text


def test_a_small_file(page):
    assert len(page.encode()) < 2_000_000


def test_figures_adapt_to_dark_mode_and_say_what_they_show(page):
    figures = re.findall(r"<svg .*?</svg>", page, flags=re.DOTALL)
    assert len(figures) > 10
    for text in figures:
        tree = ET.fromstring(text)
        assert tree.get("role") == "img" and len(tree.get("aria-label")) > 20
        assert "width" not in tree.attrib  # it is the page that gives it
        colours = set(re.findall(r"#[0-9a-f]{6}\b", text))
        assert not colours, colours  # all come from the style sheet


def test_cost_counts_what_was_saved(study):
    content = gather(study)
    assert content.cost.raced == (content.trials["state"] == "pruned").sum() > 0
    assert content.cost.mean_s == pytest.approx(1.0)
    assert content.cost.raced_s == pytest.approx(content.cost.raced / 2)
    assert content.cost.parts_s["forward"] == pytest.approx(0.9 * content.cost.evaluated)


@pytest.mark.parametrize("limit", [0, 1, 3, 20])
def test_a_study_that_still_runs(make_study, tmp_path, limit):
    found = Page(render(make_study(tmp_path / "s", limit=limit)))
    assert f"finished {max(0, limit - 1)} of 60 trials" in found.text
    shown = "Fixed and broken" in found.text
    assert shown == (limit >= 3), "a change is shown once a trial is better than the baseline"


def test_results_of_other_versions(study):
    """Fields that came later, or are missing, cost at most their own section."""
    result = json.loads(json.dumps(study.result))
    own = {key: result[key] for key in ("scores", "comparisons")}
    result["tasks"] = {"sst<2>": {"metric": "perplexity", "weight": 2.0, **own}}
    result["scores"]["baseline"]["test"]["entropy"] = 3.0
    del result["truncated"]
    assert read_verdict(result) is not None
    text = Page(render(replace(study, result=result))).text
    assert "raises accuracy on test" in text
    assert "Every task on test" in text and "sst<2> perplexity 2 " in text
    assert "trials" in Page(render(replace(study, result={"scores": {}}))).text


def test_no_path_of_the_machine_is_in_it(study, tmp_path):
    model = tmp_path / "private" / "my-model"
    config = study.config.model_copy(
        update={
            "model": study.config.model.model_copy(update={"path": str(model)}),
            "task": study.config.task.model_copy(update={"data": str(tmp_path / "q.jsonl")}),
            "factors": str(tmp_path / "factors"),
        }
    )
    failures = {f"InputError: {model}/config.json is gone": 1}
    summary = replace(study.summary, failures=failures)
    page = render(replace(study, config=config, summary=summary))
    assert str(tmp_path) not in page and str(study.folder) not in page
    text = Page(page).text
    assert "Model my-model" in text and "data: q.jsonl" in text
    assert "InputError: my-model/config.json is gone" in text


def test_the_command_writes_one_file(study, tmp_path):
    run = CliRunner().invoke(
        app, ["report", str(study.folder), "--out", str(tmp_path / "r.html"), "--json"]
    )
    assert run.exit_code == 0, run.output
    assert json.loads(run.output)["bytes"] == (tmp_path / "r.html").stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
