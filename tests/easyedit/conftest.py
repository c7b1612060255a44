"""The real toolkit: the EasyEdit that `locate` finds, on tiny models in memory."""

import copy

import pytest

import easyedit_packe
from easyedit_packe import PaCKEHyperParams
from easyedit_packe.models import LoadedModel

from ..conftest import make_model, make_tokenizer


@pytest.fixture(scope="session")
def found():
    return easyedit_packe.register()


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    """EasyEdit writes ./logs wherever it is run."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def hparams():
    return PaCKEHyperParams(num_critical_paths=4, lr=1e-2, num_steps=6, device="cpu")


@pytest.fixture
def editor_of(found):
    """Make a `BaseEditor` around a tiny model; the tokeniser gets the padding side EasyEdit would give it."""
    from easyeditor import BaseEditor

    def make(hparams, architecture="llama", name="any-name-at-all"):
        hparams = copy.copy(hparams)
        hparams.model_name = LoadedModel(name, make_model(architecture), make_tokenizer("left"))
        return BaseEditor.from_hparams(hparams)

    return make
