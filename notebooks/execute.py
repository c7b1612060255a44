"""Run a notebook from top to bottom, and keep what its cells show.

python notebooks/execute.py notebooks/quickstart.ipynb
"""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def executed(notebook: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs of this run, which happens in an empty folder, by this Python and its `packe`."""
    read = nbformat.read(notebook, as_version=4)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as folder:
        where = {"metadata": {"path": folder}}
        client = NotebookClient(read, timeout=600, record_timing=False, coalesce_streams=True, resources=where)
        client.execute(env={**os.environ, "PATH": path})
    return read


if __name__ == "__main__":
    nbformat.write(executed(Path(sys.argv[1])), sys.argv[1])
