import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "docs" / "make_families.py"


def test_the_page_of_families_is_what_the_tests_check():
    spec = importlib.util.spec_from_file_location("make_families", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PAGE.read_text(encoding="utf-8") == script.render(), (
        "docs/families.md is stale; run python docs/make_families.py"
    )
