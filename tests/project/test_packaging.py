"""The wheel holds all that the package reads, and works in an environment that has no checkout of it."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import easyedit_packe

from ..conftest import ROOT

EXTRAS = [
    "datasets", "easyeditor", "einops", "gguf", "gradio", "higher", "hydra", "hypothesis", "matplotlib", "nltk",
    "openai", "pandas", "playwright", "scipy", "sklearn", "tabulate", "zstandard",
]  # fmt: skip


def run(*command, **options):
    return subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True, **options)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, because setuptools builds where the sources are."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in ("easyedit_packe", "hparams"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--quiet"]
    run(sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", out, source)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A new environment with the wheel in it, and behind it this one's packages, so that nothing is downloaded.

    A `.pth` file adds a folder without reading that folder's own `.pth` files: an editable install stays behind.
    """
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel)
    return folder


@pytest.fixture
def shell(environment, tmp_path):
    """Runs a command of that environment in an empty folder."""

    def shell(command, *arguments):
        clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        return run(environment / "bin" / command, *arguments, cwd=tmp_path, env=clean).stdout

    return shell


@pytest.mark.slow
def test_the_wheel_holds_code_data_and_every_configuration(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        (licence,) = [name for name in archive.namelist() if name.endswith("LICENSE")]
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
    package = {p for p in (ROOT / "easyedit_packe").rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    wanted = {str(p.relative_to(ROOT)) for p in package}
    wanted |= {f"easyedit_packe/_hparams/{p.relative_to(ROOT / 'hparams')}" for p in ROOT.glob("hparams/*/*.yaml")}
    assert held == wanted
    assert {"easyedit_packe/py.typed", "easyedit_packe/_hparams/PaCKE+/smollm2-135m.yaml"} < held


@pytest.mark.slow
def test_the_package_comes_from_the_wheel(shell, environment):
    found, version = json.loads(
        shell("python", "-c", "import json, easyedit_packe as e; print(json.dumps([e.__file__, e.__version__]))")
    )
    assert Path(found).is_relative_to(environment)
    assert version == easyedit_packe.__version__
    assert shell("packe", "--version") == f"packe {easyedit_packe.__version__}\n"


@pytest.mark.slow
@pytest.mark.parametrize("editor", ["PaCKE", "PaCKE+"])
def test_it_edits_the_default_model_by_shipped_configurations(shell, editor):
    fact = ["--prompt", "{} is located in the city of", "--subject", "The Eiffel Tower", "--target", "Rome"]
    said = shell("packe", "edit", *fact, "--editor", editor, "--hparams", "smollm2-135m", "--out", "p", "--json")
    (row,) = json.loads(said)["edits"]
    assert row["before"].startswith("Paris")
    assert row["after"].startswith("Rome")
    assert row["efficacy"] == 1.0
    assert shell("packe", "ask", "--patch", "p", row["prompt"]).startswith("Rome")


@pytest.mark.slow
def test_an_edit_needs_no_extra():
    code = f"""
import sys
sys.modules.update(dict.fromkeys({EXTRAS!r}))
from tests.conftest import REQUESTS, make_model, make_tokenizer
from easyedit_packe import PaCKEHyperParams, PaCKEPlusHyperParams, compute_patch
model, tok = make_model("llama"), make_tokenizer()
for hparams in (PaCKEHyperParams(num_critical_paths=4), PaCKEPlusHyperParams(num_critical_paths=4)):
    patch = compute_patch(model, tok, REQUESTS[:1], hparams)
    patch.apply(model)
    patch.to_lora()
PaCKEPlusHyperParams.from_hparams("llama3-8b")
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
