"""A trial is read once from what Optuna stores, and a study is opened by a call of its own."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from search.cuts.composition import Composition
from search.study.driven_study import DrivenStudy
from search.study.journal import JOURNAL
from search.study.optuna_study import OptunaStudy
from search.study.subject import Subject
from search.study.trials import TrialRecord
from tasks.errors import InputError


def record_of(value: float | None = None, **attributes: object) -> TrialRecord:
    state = TrialState.FAIL if value is None else TrialState.COMPLETE
    return TrialRecord.of(create_trial(value=value, state=state, user_attrs=attributes))


def test_what_is_stored_is_typed() -> None:
    one = record_of(
        *(0.5,), composition="1.fc_in=0.1 2.fc_out=0.2", effect="1.fc_in=rank:6", log_loss=0.25,
        scores={"qa": 0.5}, kept=0.75, seconds={"total": 2.0}, deaths=1,
    )  # fmt: skip
    assert (one.text, one.effect) == ("1.fc_in=0.1 2.fc_out=0.2", "1.fc_in=rank:6")
    assert (one.score, one.log_loss, one.kept, one.scores) == (0.5, 0.25, 0.75, {"qa": 0.5})
    assert one.merit == (0.5, -0.25, -1, -one.number)
    assert one.counts and one.tried().values == (0.5,)
    assert one.further == {
        "scores": {"qa": 0.5}, "kept": 0.75, "seconds": {"total": 2.0}, "deaths": 1,
    }  # fmt: skip
    failed = record_of(reason="no room", failure="out of memory")
    assert (failed.reason, failed.failure, failed.score) == ("no room", "out of memory", None)
    assert not failed.counts and failed.log_loss is None


def test_a_composition_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed, parse = [], Composition.parse

    def counted(texts: list[str]) -> Composition:
        parsed.append(texts)
        return parse(texts)

    monkeypatch.setattr(Composition, "parse", staticmethod(counted))
    one = record_of(0.5, composition="1.fc_in=0.1")
    assert not parsed, "not before it is asked for"
    assert one.cuts == one.composition.interventions == one.tried().composition.interventions
    assert len(parsed) == 1


@pytest.mark.parametrize("text", ["", "baseline", "no cut"])
def test_what_is_no_composition_cuts_nothing(text: str) -> None:
    assert record_of(0.5, composition=text).cuts == ()


def test_a_text_that_is_no_composition_is_said() -> None:
    with pytest.raises(InputError, match="no"):
        assert record_of(0.5, composition="no cut").composition


def test_the_constructor_writes_nothing_and_sets_nothing(tmp_path: Path, open_study) -> None:
    driven = open_study(tmp_path)
    before = (tmp_path / JOURNAL).read_bytes()
    assert b'"budget"' in before, "open has written"
    stored = OptunaStudy.find(tmp_path, driven.identity.study_id, driven.config)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    own = (driven._ledger._parameters._space, driven.history.max_ranks)
    DrivenStudy(Subject(tmp_path, driven.identity, driven.config, *own), stored)
    assert (tmp_path / JOURNAL).read_bytes() == before
    assert optuna.logging.get_verbosity() == optuna.logging.WARNING
