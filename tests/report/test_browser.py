"""The report in a real browser: Debian's Chromium, headless, on paper and on a phone."""

import shutil
from collections.abc import Iterator

import pytest

from search.report.html import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SERIOUS = {"serious", "critical"}


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    api = pytest.importorskip("playwright.sync_api", reason="the extra test-browser is missing")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    with api.sync_playwright() as driver:
        # Root has no sandbox of its own; the page is ours and fetches nothing.
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def reports(make_study, hostile_study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    found = {
        "large": make_study(folder / "large", trials=300, layers=12),
        "hostile": hostile_study,
        "running": make_study(folder / "running", limit=15),
    }
    for name, record in found.items():
        write_report(record, folder / f"{name}.html")
    return folder


@pytest.fixture
def opened(browser, reports, request):
    """A page of a given report, width and scheme, with what it complained of and asked for."""
    name, width, scheme = request.param
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True
    )
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((reports / f"{name}.html").as_uri())
    yield page, said, asked
    context.close()


EVERY = [("large", 1440, "light"), ("large", 390, "dark"), ("hostile", 1440, "dark")]


@pytest.mark.parametrize("opened", [*EVERY, ("running", 390, "light")], indirect=True, ids=str)
def test_it_opens_without_complaint_and_asks_for_nothing(opened):
    page, said, asked = opened
    assert said == []
    assert asked == [page.url]
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


@pytest.mark.parametrize("opened", EVERY, indirect=True, ids=str)
def test_every_plot_is_drawn(opened):
    page, *_ = opened
    assert page.locator("figure").count() >= 12
    shown = page.locator("figure:visible").all()
    assert shown, "of so many figures some are in view"
    for figure in shown:
        box = figure.locator("svg").bounding_box()
        assert box["width"] > 250 and box["height"] > 40
        drawn = figure.evaluate(
            "f => [...f.querySelectorAll('svg path, svg use, svg image, svg text')]"
            ".filter(e => e.getBoundingClientRect().width > 0).length"
        )
        assert drawn > 5


@pytest.mark.parametrize("opened", EVERY, indirect=True, ids=str)
def test_axe_finds_nothing_serious(opened):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page, *_ = opened
    found = axe.run(page).response
    assert len(found["passes"]) > 15
    assert [rule["id"] for rule in found["violations"] if rule["impact"] in SERIOUS] == []


@pytest.mark.parametrize("opened", [("large", 1440, "light")], indirect=True, ids=str)
def test_maps_and_tables_answer_to_the_keyboard(opened):
    page, *_ = opened
    maps = page.locator("[data-map]")
    assert maps.locator("visible=true").count() > 0
    before = page.locator("[data-map]:not([hidden])").get_attribute("data-map")
    page.locator("#choose-map").focus()
    page.keyboard.press("ArrowDown")
    after = page.locator("[data-map]:not([hidden])")
    assert after.count() == 1 and after.get_attribute("data-map") != before
    page.locator("th button", has_text="trial").focus()
    for order in ("descending", "ascending"):
        page.keyboard.press("Enter")
        numbers = [
            int(text)
            for text in page.locator("table[data-sortable] tbody td:first-child").all_inner_texts()
        ]
        assert numbers == sorted(numbers, reverse=order == "descending")
    page.keyboard.press("Home")
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.tagName"))
    assert {"A", "SELECT", "SUMMARY", "DIV"} <= reached


@pytest.mark.parametrize("opened", [("large", 1440, "dark")], indirect=True, ids=str)
def test_paper_is_white_and_shows_everything(opened):
    page, *_ = opened
    page.emulate_media(media="print", color_scheme="dark")
    style = "getComputedStyle(document.body)"
    assert page.evaluate(f"{style}.backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate(f"{style}.color") == "rgb(28, 33, 40)"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert page.pdf()[:5] == b"%PDF-"
