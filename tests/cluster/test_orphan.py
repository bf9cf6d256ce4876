"""A worker ends with its driver, whatever it is busy with."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from cluster.orphan import NAME, POLL_S, end_with
from search.study.lock import Holder

DRIVER = """
import json, time
from dataclasses import asdict
from search.study.lock import Holder
print(json.dumps(asdict(Holder.here())), flush=True)
time.sleep(1000)
"""

WORKER = """
import json, sys, threading
from cluster.orphan import NAME, end_with
from search.study.lock import Holder
driver = Holder(**json.loads(sys.argv[1]))
end_with(driver)
end_with(driver)
print(sum(thread.name == NAME for thread in threading.enumerate()), flush=True)
while True:  # no message of Ray's is heard meanwhile
    sum(range(1_000_000))
"""


def python(code: str, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_busy_worker_ends_with_its_driver_and_not_before() -> None:
    with python(DRIVER) as driver, python(WORKER, said(driver)) as worker:
        try:
            assert said(worker) == "1", "one watch, however often it is asked for"
            with pytest.raises(subprocess.TimeoutExpired):
                worker.wait(2 * POLL_S)
            driver.kill()
            driver.wait()
            assert worker.wait(60) == 1, "within seconds; the limit is for a busy machine"
        finally:
            driver.kill()
            worker.kill()


def test_the_driver_of_another_machine_is_not_watched() -> None:
    end_with(replace(Holder.here(), machine="another", pid=1, started="0"))
    assert all(thread.name != NAME for thread in threading.enumerate())
