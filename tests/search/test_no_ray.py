from __future__ import annotations

import subprocess
import sys


def test_search_and_tasks_leave_ray_out() -> None:
    modules = (
        "search, search.cli, search.loop, search.plan, search.study.study, search.export.dense"
    )
    code = f"import sys, tasks.registry, {modules}; sys.exit('ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
