"""What a study is of, and where it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from search.config import StudyConfig
from search.cuts.refs import MatrixRef
from search.space import Space
from search.strategies.base import Setting
from search.study.identity import Identity
from search.study.objective import Objective


@dataclass(frozen=True)
class Subject:
    """What a study is of, and the `folder` that it is kept in.

    `max_ranks`: min(out, in) of the matrices of `space`. `objective` knows the tasks' metrics;
    without it they are called ``score``. `setting` is what the strategy is to know, by default the
    space. `shapes` [out, in] of all matrices of the model, of a budget those of the space, say how
    much a trial keeps.
    `general_text`: the digest of the texts on which the winner is compared at the end.
    """

    folder: Path
    identity: Identity
    config: StudyConfig
    space: Space
    max_ranks: Mapping[MatrixRef, int]
    objective: Objective | None = None
    setting: Setting | None = None
    shapes: Mapping[MatrixRef, tuple[int, ...]] | None = None
    general_text: str | None = None
