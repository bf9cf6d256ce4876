from __future__ import annotations

import pytest

from laser_search.testing.kinds import KindContract
from search.cuts.kinds.base import Kind
from search.cuts.kinds.registry import KINDS


class TestKinds(KindContract):
    @pytest.fixture(params=list(KINDS))
    def kind(self, request: pytest.FixtureRequest) -> Kind:
        return KINDS[request.param]
