"""A changed world is noticed; what may be accepted, and what may not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from search.study.identity import Digests, Identity, digest_settings, flat_settings
from tasks.errors import InputError


def world(config, **digests: str) -> Digests:
    found = Digests("w", "c", "e", digest_settings(config), flat_settings(config))
    return replace(found, **digests)


@pytest.mark.parametrize(
    ("part", "words"),
    [("weights", "weights of the"), ("checkpoint", "files of the"), ("examples", "questions")],
)
def test_another_model_or_other_data_cannot_be_accepted(make_config, part, words) -> None:
    identity = Identity.new(world(make_config()))
    for accept in (False, True):
        with pytest.raises(InputError, match=rf"{words}.*would not be comparable"):
            identity.check(world(make_config(), **{part: "other"}), accept=accept)


def test_where_things_are_and_how_many_trials_is_no_change(make_config) -> None:
    identity = Identity.new(world(make_config()))
    more = make_config(trials=500, max_attempts=7).model_copy(update={"factors": "/elsewhere"})
    assert identity.check(world(more)) is identity


def test_another_search_may_be_accepted_and_is_written_down(make_config, tmp_path: Path) -> None:
    identity = Identity.new(world(make_config()))
    now = world(make_config(strategy="random", seed=7))
    words = (
        r"search.strategy was 'tpe' when the study began and is 'random' now; search.seed was 0 "
        r".* and is 7 now; .*--accept-change"
    )
    with pytest.raises(InputError, match=words):
        identity.check(now)
    accepted = identity.check(now, accept=True)
    accepted.write(tmp_path)
    again = Identity.read(tmp_path)
    assert again.check(now) is again
    assert (again.study_id, again.created) == (identity.study_id, identity.created)
    assert "'random' now" in again.accepted[0]
    with pytest.raises(InputError, match="is 'tpe' now"):
        again.check(world(make_config()))


def test_what_makes_trials_incomparable_cannot_be_accepted(make_config) -> None:
    identity = Identity.new(world(make_config()))
    paper = make_config()
    paper = paper.model_copy(update={"task": paper.task.model_copy(update={"scoring": "paper"})})
    with pytest.raises(InputError, match=r"task.scoring was 'default'.*would not be comparable"):
        identity.check(world(paper), accept=True)
    # The storage knows places in the list, which would be other values now.
    with pytest.raises(InputError, match=r"space.rho was .*would not be comparable"):
        identity.check(world(make_config(rho=[0.3, 0.1])), accept=True)


def test_a_range_of_rho_may_be_moved(make_config, tmp_path, open_study, drive) -> None:
    from search.sections import RhoRange

    narrow = make_config(rho=RhoRange(low=0.1, high=0.5), trials=6)
    wide = make_config(rho=RhoRange(low=0.01, high=0.9), trials=12)
    identity = Identity.new(world(narrow))
    with pytest.raises(InputError, match=r"space.rho.low was 0.1 .* 0.01 now.*--accept-change"):
        identity.check(world(wide))
    accepted = identity.check(world(wide), accept=True)
    drive(open_study(tmp_path / "study", narrow, identity))
    study = open_study(tmp_path / "study", wide, accepted)
    before = [t.params for t in study.trials()]
    drive(study)
    assert study.spent == 12
    assert [t.params for t in study.trials()][: len(before)] == before


def test_other_versions_are_said(make_config) -> None:
    identity = Identity.new(world(make_config()))
    old = replace(identity, versions={**identity.versions, "torch": "1.0", "ray": "1.0"})
    with pytest.raises(
        InputError, match=r"began with torch 1.0, this is .*--accept-change"
    ) as said:
        old.check(world(make_config()))
    assert "ray" not in str(said.value), "it has no part in what a trial gives"
    accepted = old.check(world(make_config()), accept=True)
    assert accepted.check(world(make_config())) is accepted
