"""Every shipped YAML is read; whatever does not fit is refused with field, value and remedy."""

import ast
import dataclasses
import inspect
import itertools
import textwrap

import pytest

from easyedit_packe.config import HyperParams, PaCKEHyperParams, PaCKEPlusHyperParams
from easyedit_packe.config.files import shipped_dir
from easyedit_packe.errors import HyperParamsError

SHIPPED = sorted(p.stem for p in (shipped_dir() / "PaCKE").glob("*.yaml"))
ASKED_FOR = {
    "gpt-j-6B", "llama-7b", "llama3-8b", "gpt2-xl", "llama3.1-8b", "llama3.2-3b", "mistral-7b", "qwen2.5-7b",
    "smollm2-135m", "qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-3b", "qwen3-0.6b", "qwen3-1.7b", "qwen3-4b", "qwen3-8b",
    "llama3.2-1b", "gemma3-1b", "gemma3-4b", "phi4", "phi4-mini", "olmo2-1b", "olmo2-7b",
}  # fmt: skip


def test_all_models_are_there():
    assert set(SHIPPED) >= ASKED_FOR


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_yaml_by_name_by_path_and_back(name):
    hp = PaCKEHyperParams.from_hparams(name)
    path = shipped_dir() / "PaCKE" / name
    assert hp == PaCKEHyperParams.from_hparams(str(path)) == PaCKEHyperParams.from_hparams(f"{path}.yaml")
    assert PaCKEHyperParams.from_dict(hp.to_dict()) == hp
    assert hp.model_name


@pytest.mark.parametrize("name", sorted(set(SHIPPED) - {"smollm2-135m"}))  # which is tuned on dev records
def test_the_papers_values(name):
    hp = PaCKEHyperParams.from_hparams(name)
    assert (hp.num_critical_paths, hp.num_negative_paths, hp.contrast_weight) == (15, 1, 0.1)
    assert (hp.lr, hp.weight_decay, hp.edit_batch_size, hp.loss_threshold) == (1e-5, 0.0, 2, None)
    assert hp.num_steps in (11, 12)


@pytest.mark.parametrize("cls", [PaCKEHyperParams, PaCKEPlusHyperParams])
def test_every_field_is_explained(cls):
    body = [
        statement
        for part in (HyperParams, cls)
        for statement in ast.parse(textwrap.dedent(inspect.getsource(part))).body[0].body
        if not ast.unparse(statement).startswith(("ALG:", "RETIRED:", "algorithms:"))
    ]
    fields = [f.name for f in dataclasses.fields(cls)]
    explained = [
        a.target.id
        for a, b in itertools.pairwise(body)
        if isinstance(a, ast.AnnAssign) and isinstance(b, ast.Expr) and isinstance(b.value.value, str)
    ]
    assert explained == fields


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"lr": -1}, r"lr: expected a positive number, got -1.0"),
        ({"lr": "fast"}, r"lr: expected float, got 'fast'"),
        ({"lr": None}, r"lr: expected float"),
        ({"num_steps": 0}, r"num_steps: expected at least 1, got 0"),
        ({"num_steps": 1.5}, r"num_steps: expected int, got 1.5"),
        ({"num_steps": True}, r"num_steps: expected int, got True"),
        ({"num_critical_path": 3}, r"unknown key 'num_critical_path'; did you mean 'num_critical_paths'"),
        ({"score": "zscores"}, r"score: did you mean 'zscore'"),
        ({"contrast_weight": -0.1}, r"contrast_weight: expected a finite number, 0 or more"),
        ({"contrast_weight": float("nan")}, r"contrast_weight"),
        ({"num_negative_paths": 0}, r"num_negative_paths: expected at least 1 while contrast_weight is not 0"),
        ({"trace": "request", "retrace_every": 2}, r"retrace_every: expected 0 with trace: request"),
        ({"loss_threshold": 0}, r"loss_threshold"),
        ({"alg_name": "ROME"}, r"alg_name: expected 'PaCKE', got 'ROME'; this configuration is for another editor"),
        ({"model_parallel": "yes"}, r"model_parallel: expected bool"),
    ],
)
def test_refused(config, message, tmp_path):
    import yaml

    path = tmp_path / "m.yaml"
    path.write_text(yaml.safe_dump({"alg_name": "PaCKE", **config}))
    with pytest.raises(HyperParamsError, match=message):
        PaCKEHyperParams.from_hparams(path)


def test_numbers_as_text():
    hp = PaCKEHyperParams.from_dict({"alg_name": "PaCKE", "lr": "1e-5", "num_steps": "12", "loss_threshold": "1e-1"})
    assert (hp.lr, hp.num_steps, hp.loss_threshold) == (1e-5, 12, 0.1)


def test_files_that_are_not_configurations(tmp_path):
    with pytest.raises(HyperParamsError, match=r"no configuration 'lama3-8b'.*did you mean 'llama3-8b'"):
        PaCKEHyperParams.from_hparams("lama3-8b")
    for text in ("- a\n- b\n", "a: [1\n", ""):
        (tmp_path / "m.yaml").write_text(text)
        with pytest.raises(HyperParamsError):
            PaCKEHyperParams.from_hparams(tmp_path / "m.yaml")


def test_authors_program_changes_only_its_choices():
    paper = PaCKEHyperParams(lr=3e-4)
    program = paper.authors_program()
    changed = {f.name for f in dataclasses.fields(paper) if getattr(paper, f.name) != getattr(program, f.name)}
    assert changed == {"retrace_every", "contrast_step", "optimizer_state", "value_bias", "shuffle"}
