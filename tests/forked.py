"""A process that knows nothing but files, without the seconds that its imports take.

A server imports torch, transformers and the program, and does nothing else. A child forked from it
is as fresh as a new process, but for what is imported. What this cannot show, that a command finds
this installation, is left to the tests that start a real process.
"""

import atexit
import gc
import json
import os
import subprocess
import sys
import tempfile
import traceback
from functools import cache
from importlib import import_module
from pathlib import Path

IMPORTED = (
    "torch",
    "search.export.same_output",
    "search.export.verify",
    "search.weights.factors",
    "transformers.models.bert.modeling_bert",
    "transformers.models.gptj.modeling_gptj",
    "transformers.models.llama.modeling_llama",
    "transformers.models.t5.modeling_t5",
)


class Forked:
    """As `subprocess.Popen` of ``python -c SOURCE WORDS``, forked from the server."""

    def __init__(self, source, *words, cwd=None):
        """Starts at once, with the environment of this process, in `cwd`."""
        self._room = tempfile.TemporaryDirectory()
        self._said = [str(Path(self._room.name, name)) for name in ("stdout", "stderr")]
        child = {
            "source": source,
            "words": ["-c", *map(str, words)],
            "environment": dict(os.environ),
            "cwd": str(cwd or Path.cwd()),
            "said": self._said,
        }
        self.pid = _ask(child)

    def ended(self):
        """Wait for its end: a `CompletedProcess`."""
        code = os.waitstatus_to_exitcode(_ask({"pid": self.pid}))
        out, err = (Path(path).read_text(errors="replace") for path in self._said)
        self._room.cleanup()
        return subprocess.CompletedProcess([], code, out, err)


def run(source, *words, cwd=None):
    """As `subprocess.run` of ``python -c SOURCE WORDS``."""
    return Forked(source, *words, cwd=cwd).ended()


@cache
def _server():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    server = subprocess.Popen(
        [sys.executable, __file__], text=True, start_new_session=True, **pipes
    )
    atexit.register(server.kill)
    return server


def _ask(question):
    server = _server()
    server.stdin.write(json.dumps(question) + "\n")
    server.stdin.flush()
    return int(server.stdout.readline())


def _serve():
    sys.path.pop(0)  # this folder, which a new process would not look into
    for name in IMPORTED:
        import_module(name)
    gc.freeze()  # a child's collector would copy it all
    for line in sys.stdin:
        asked = json.loads(line)
        if "pid" in asked:
            answer = os.waitpid(asked["pid"], 0)[1]
        elif (answer := os.fork()) == 0:
            return asked
        print(answer, flush=True)
    return None


def _become(asked):
    for number, path in enumerate(asked["said"], 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["cwd"])
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [folder for folder in given if folder and folder not in sys.path]
    sys.argv = asked["words"]
    return compile(asked["source"], "<string>", "exec")


def _run(source):
    """Its exit code, as Python says it."""
    try:
        exec(source, {"__name__": "__main__"})
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if code and not isinstance(end.code, int):
            sys.stderr.write(f"{end.code}\n")
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    child = _serve()
    if child is not None:
        os._exit(_run(_become(child)))  # taking all that is imported apart again takes seconds
