"""The `packe` command: run as a shell does, or in this process, where that is enough."""

import os
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from easyedit_packe.cli.app import app

PACKE = Path(sys.executable).parent / "packe"


def shell(*arguments, **environment):
    return subprocess.run([str(PACKE), *arguments], capture_output=True, text=True, env={**os.environ, **environment})


def packe(*arguments):
    """In this process; an error of this package is raised."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout
