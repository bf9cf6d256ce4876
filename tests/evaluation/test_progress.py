"""What `evaluate` tells while it works: its phases in order, and the batches of each."""

from pathlib import Path

import search.demo
from search.model import ModelSource
from search.sections import SplitConfig, TaskConfig
from search.standalone import CutRequest, evaluate_compositions

DEMO = Path(search.demo.__file__).parent


class Heard:
    def __init__(self):
        self.names, self.steps = [], {}

    def enter(self, name, total=None):
        if name not in self.names:
            self.names.append(name)
        self.steps[name] = (0, total)

    def advance(self, done, *, left_s=None, detail=""):
        name = self.names[-1]
        self.steps[name] = (done, self.steps[name][1])

    def note(self, text):
        raise AssertionError("nothing to note")


def test_evaluate_says_each_phase_and_counts_every_batch(tmp_path):
    lines = (DEMO / "questions.jsonl").read_text().splitlines()[:240]
    (tmp_path / "q.jsonl").write_text("\n".join(lines))
    heard = Heard()
    evaluate_compositions(
        source=ModelSource(str(DEMO / "model")),
        task=TaskConfig(name="jsonl", data=str(tmp_path / "q.jsonl")),
        part="all",
        split=SplitConfig(),
        cuts=CutRequest(("2.fc_in=0.1",)),
        factors=tmp_path / "factors",
        phases=heard,
    )
    assert heard.names == [
        "reading the checkpoint",
        "reading the questions",
        "loading the model",
        "factors",
        "baseline",
        "baseline: batch",
        "after the cut",
        "after the cut: batch",
    ]
    for name in ("baseline: batch", "after the cut: batch"):
        done, total = heard.steps[name]
        assert done == total > 0
