from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_search_and_tasks_leave_ray_out() -> None:
    modules = "search, search.cli, search.loop, search.plan, search.export.dense"
    modules += ", search.study.driven_study"
    code = f"import sys, tasks.registry, {modules}; sys.exit('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code])
    assert done.returncode == 0, f"expected no ray after the import of {modules}"
