"""A cut is shown by what it does itself, not by the company that it kept."""

import math

import pytest
from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial

from search.report.frames import interventions_frame
from search.report.html import render
from search.report.maps import best_by
from search.report.views import VIEWS, of_view
from search.results import Study
from search.study.trials import TrialRecord
from tasks.errors import InputError


def _trials(*found):
    trials = []
    for number, (composition, value) in enumerate(found):
        trial = create_trial(
            params={"x": 1}, distributions={"x": IntDistribution(0, 2)}, value=value,
            state=TrialState.COMPLETE, user_attrs={"composition": composition},
        )  # fmt: skip
        trial.number = number
        trials.append(TrialRecord.of(trial))
    return trials


@pytest.fixture
def cuts():
    """1.fc_in helps by .2; 0.fc_in does nothing, but was tried beside it; 2.fc_in never alone."""
    trials = _trials(
        ("1.fc_in=0.1", 0.7),
        ("0.fc_in=0.1", 0.5),
        ("0.fc_in=0.1 1.fc_in=0.1", 0.7),
        ("1.fc_in=0.1 2.fc_in=0.2", 0.6),
        ("0.fc_in=0.1 1.fc_in=0.1 2.fc_in=0.2", 0.65),
        ("2.fc_in=0.2 3.fc_in=0.5", 0.9),
    )
    return interventions_frame(trials, 0.5)


def test_gains_are_over_the_same_composition_without_the_cut(cuts):
    gains = {(c.trial, c.matrix): c.gain for c in cuts.itertuples()}
    assert gains[0, "1.fc_in"] == pytest.approx(0.2)  # over the unedited model
    assert gains[1, "0.fc_in"] == pytest.approx(0)
    assert gains[2, "0.fc_in"] == pytest.approx(0) and gains[2, "1.fc_in"] == pytest.approx(0.2)
    assert gains[3, "2.fc_in"] == pytest.approx(-0.1)
    assert math.isnan(gains[3, "1.fc_in"])  # 2.fc_in alone was never evaluated
    assert gains[4, "2.fc_in"] == pytest.approx(-0.05)
    assert gains[4, "0.fc_in"] == pytest.approx(0.05)
    assert math.isnan(gains[5, "2.fc_in"]) and math.isnan(gains[5, "3.fc_in"])


def test_without_a_baseline_singles_have_no_gain():
    assert math.isnan(interventions_frame(_trials(("1.fc_in=0.1", 0.7)))["gain"][0])


def test_each_view_shows_its_own(cuts):
    alone = best_by(of_view(cuts, "alone"), "row", "column")["fc_in"].to_dict()
    assert alone == {"0": 0.5, "1": 0.7}
    gain = best_by(of_view(cuts, "gain"), "row", "column")["fc_in"].to_dict()
    assert gain == pytest.approx({"0": 0.05 / 3, "1": 0.2, "2": -0.075})
    best = best_by(of_view(cuts, "best"), "row", "column")["fc_in"].to_dict()
    assert best == {"0": 0.7, "1": 0.7, "2": 0.9, "3": 0.9}


def test_a_gain_is_averaged_per_rank_before_the_best_rank_is_shown():
    pairs = ("0.fc_in=0.1 1.fc_in=0.1", 0.4), ("0.fc_in=0.2 1.fc_in=0.1", 0.6)
    singles = ("0.fc_in=0.1", 0.6), ("0.fc_in=0.2", 0.4), ("1.fc_in=0.1", 0.5)
    trials = _trials(*singles, *pairs)
    cuts = interventions_frame(trials, 0.5)
    table = best_by(of_view(cuts, "gain"), "row", "column")
    assert table.loc["0", "fc_in"] == pytest.approx(0.0)
    by_rank = best_by(of_view(cuts, "gain"), "row", "rho")
    assert by_rank.loc["0"].to_dict() == pytest.approx({0.1: 0.0, 0.2: 0.0})


def test_the_report_begins_with_the_cut_alone_and_names_the_others(study):
    page = render(study)
    options = page[page.index('<select id="choose-map">') : page.index("</select>")]
    places = [options.index(f">{title}<") for title in VIEWS.values()]
    assert list(VIEWS) == ["alone", "gain", "best"] and places == sorted(places)
    assert "best of all trials with this cut" in options
    first = page[page.index("data-map=") :]
    assert first.startswith('data-map="map-alone" class="plain">')
    assert "whatever else they cut" in page


def test_the_api_shows_each_view(demo_study, make_study, tmp_path):
    study = Study.open(demo_study.folder)
    assert study.heat_map().axes and study.heat_map(view="gain").axes
    assert study.heat_map(view="best").axes and study.reduction_map("fc_in").axes
    with pytest.raises(InputError, match=r"view 'glow' .*alone, gain, best"):
        study.heat_map(view="glow")
