from __future__ import annotations

import pytest

from laser_search.testing.formats import FormatContract
from search.export.format import Format
from search.export.formats import FORMATS


class TestFormats(FormatContract):
    @pytest.fixture(params=[name for name in FORMATS if name != "lora"])
    def form(self, request: pytest.FixtureRequest) -> Format:
        return FORMATS[request.param]


class TestLora(FormatContract):
    cuts = "0.fc_in=0.9 1.fc_out=rank:60"

    @pytest.fixture
    def form(self) -> Format:
        return FORMATS["lora"]
