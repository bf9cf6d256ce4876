"""What is written replaces nothing that somebody else wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from search.place import check_file, check_folder, check_study_place
from search.report.commands import mount
from tasks.errors import InputError

APP = typer.Typer()
mount(APP)


def test_spectra_and_reports_spare_other_files(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "snr.json").write_text("{}")
    done = CliRunner().invoke(APP, ["spectra", "nowhere", "--out", str(mine)])
    assert isinstance(done.exception, InputError)
    assert f"{mine} contains other files" in str(done.exception)
    page = tmp_path / "page.html"
    page.write_text("<title>mine</title>")
    done = CliRunner().invoke(APP, ["report", str(tmp_path), "--out", str(page)])
    assert isinstance(done.exception, InputError)
    assert f"{page} exists" in str(done.exception)


def test_what_we_wrote_may_be_written_again(tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    check_file(page, "ours", "--out")
    page.write_text("")
    check_file(page, "ours", "--out")
    page.write_text("<title>ours</title>" + "x" * 9000)
    check_file(page, "ours", "--out")
    check_folder(tmp_path, "a.html", "ours", "--out")
    with pytest.raises(InputError, match="choose another with --out"):
        check_folder(tmp_path, "a.html", "theirs", "--out")


def test_a_launch_that_failed_may_be_tried_again(tmp_path: Path) -> None:
    study = tmp_path / "study"
    (study / "lease").mkdir(parents=True)
    (study / "study.yaml").write_text("ours")
    check_study_place(study, tmp_path / "study.yaml")
    with pytest.raises(InputError, match="with its own copy"):
        check_study_place(study, study / "study.yaml")
