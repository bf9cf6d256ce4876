"""Run docs/results.ipynb on a fresh demo and store it with its outputs.

    python docs/make_notebook.py [STUDY]

STUDY: the folder of a finished demo; else one is searched here, with as many trials as the demo's.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from search.demo.study import demo_config
from search.here import run_here
from search.phases import reporting

NOTEBOOK = Path(__file__).with_name("results.ipynb")


def main() -> None:
    """Execute every cell beside the study and write the notebook."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "laser-demo"
        if len(sys.argv) > 1:
            shutil.copytree(sys.argv[1], folder)
        else:
            with reporting() as phases:
                run_here(demo_config(folder), folder, phases)
        place = {"metadata": {"path": name}}
        NotebookClient(notebook, timeout=1200, resources=place).execute()
    for cell in notebook.cells:  # times would change with every run, and warnings name folders
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.output_type != "stream"]
    nbformat.write(notebook, NOTEBOOK)
    print(f"{NOTEBOOK}: {NOTEBOOK.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
