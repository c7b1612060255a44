"""The tests on both ends of the supported versions: `make test-matrix`, or one such as `nox -s "suite(3.11-oldest)"`.

A session is the Makefile's `suite` in an environment of its own. An interpreter that is not found is skipped, unless uv
is installed: it then makes the environments, and fetches interpreters.
"""

from pathlib import Path

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"

# Some of the oldest packages have no wheels for later interpreters.
ENDS = [("3.11", "oldest"), ("3.11", "newest"), ("3.13", "newest")]


@nox.session
@nox.parametrize(("python", "end"), ENDS, ids=map("-".join, ENDS))
def suite(session: nox.Session, end: str) -> None:
    session.install("pip")  # uv's environments have none
    make = ["make", "suite", f"VENV={session.virtualenv.location}", "TORCH=torch", "TRANSFORMERS=transformers"]
    versions = str(Path("constraints", f"{end}.txt").resolve())
    session.run(*make, env={"PIP_CONSTRAINT": versions}, external=True)
