"""PaCKE+ is an algorithm of its own: its settings, its files, and what either refuses of the other."""

import dataclasses
import warnings

import pytest
import yaml

from easyedit_packe.config import PaCKEHyperParams, PaCKEPlusHyperParams, load_hparams
from easyedit_packe.config.files import shipped_dir
from easyedit_packe.errors import HyperParamsError

SHIPPED = sorted(p.stem for p in (shipped_dir() / "PaCKE+").glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_yaml_by_name_by_path_and_back(name):
    hp = PaCKEPlusHyperParams.from_hparams(name)
    assert hp == PaCKEPlusHyperParams.from_hparams(shipped_dir() / "PaCKE+" / f"{name}.yaml")
    assert PaCKEPlusHyperParams.from_dict(hp.to_dict()) == hp
    assert hp.alg_name == "PaCKE+"
    assert load_hparams(name, "PaCKE+") == hp


def test_each_model_of_packe_plus_has_a_file_of_packe():
    assert {"smollm2-135m", "gpt-j-6B", "llama-7b", "llama3-8b"} == set(SHIPPED)
    for name in SHIPPED:
        PaCKEHyperParams.from_hparams(name)


def test_defaults_are_those_of_the_default_model():
    """In all layers, and all value nodes, which another model has another number of."""
    shipped, default = PaCKEPlusHyperParams.from_hparams("smollm2-135m"), PaCKEPlusHyperParams()
    differ = {f.name for f in dataclasses.fields(default) if getattr(default, f.name) != getattr(shipped, f.name)}
    assert differ == {"model_name", "layers", "value_nodes"}


def fields_of(cls):
    return {f.name for f in dataclasses.fields(cls)}


@pytest.mark.parametrize("field", sorted(fields_of(PaCKEPlusHyperParams) - fields_of(PaCKEHyperParams) | {"solver"}))
def test_packe_refuses_each_setting_of_packe_plus_and_names_the_file(field, tmp_path):
    path = tmp_path / "smollm2-135m.yaml"
    path.write_text(yaml.safe_dump({"alg_name": "PaCKE", field: 1}))
    with pytest.raises(HyperParamsError, match=rf"{field}' is a setting of PaCKE\+.*PaCKE\+/smollm2-135m\.yaml"):
        PaCKEHyperParams.from_hparams(path)


@pytest.mark.parametrize("field", sorted(fields_of(PaCKEHyperParams) - fields_of(PaCKEPlusHyperParams)))
def test_packe_plus_refuses_each_setting_of_packe_and_names_the_file(field, tmp_path):
    path = tmp_path / "smollm2-135m.yaml"
    path.write_text(yaml.safe_dump({"alg_name": "PaCKE+", field: 1}))
    with pytest.raises(HyperParamsError, match=rf"{field}' is a setting of PaCKE, .*hparams/PaCKE/smollm2-135m\.yaml"):
        PaCKEPlusHyperParams.from_hparams(path)


def test_a_file_of_version_0_1_names_what_to_use_instead(tmp_path):
    """PaCKE's name, PaCKE+'s settings; a model that nothing is shipped for."""
    path = tmp_path / "my-model-plus.yaml"
    path.write_text(yaml.safe_dump({"alg_name": "PaCKE", "layers": [1], "solver": "gauss_newton"}))
    with pytest.raises(HyperParamsError, match=r"use a file of hparams/PaCKE\+/ instead"):
        PaCKEHyperParams.from_hparams(path)


@pytest.mark.parametrize("read", [PaCKEHyperParams.from_hparams, load_hparams, PaCKEPlusHyperParams.from_hparams])
def test_names_of_version_0_1_go_on_working(read):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert read("smollm2-135m-plus") == PaCKEPlusHyperParams.from_hparams("smollm2-135m")
    assert bool(seen) == (read.__qualname__ != "HyperParams.from_hparams")
    assert all("PaCKEPlusHyperParams.from_hparams('smollm2-135m')" in str(w.message) for w in seen)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": [0, "x"]}, r"layers: expected .*list.*got \[0, 'x'\]"),
        ({"layers": [-1]}, r"layers"),
        ({"layers": []}, r"layers: expected at least one layer, or null, got \[\]"),
        ({"num_steps": 1}, r"num_steps: expected at least 2, got 1"),
        ({"ridge": 0.0}, r"ridge: expected a positive number, got 0.0"),
        ({"value_nodes": 0}, r"value_nodes: expected at least 1 or null, got 0"),
        ({"memory_size": 1, "replay": 2}, r"replay: expected at most memory_size, got 2; raise memory_size"),
        ({"null_space": -1.0}, r"null_space: expected a finite number, 0 or more, got -1.0; use 0 to switch it off"),
        ({"margin": float("inf")}, r"margin"),
        ({"trace": "edit"}, r"trace: .*known: call, request; got 'edit'"),
        ({"write_at": "subjects"}, r"write_at: did you mean 'subject'"),
        ({"alg_name": "PaCKE"}, r"alg_name: expected 'PaCKE\+', got 'PaCKE'"),
    ],
)
def test_refused(settings, message):
    with pytest.raises(HyperParamsError, match=message):
        PaCKEPlusHyperParams(**settings)


def test_either_function_takes_its_own_settings_only():
    from easyedit_packe import apply_packe_plus_to_model, apply_packe_to_model, compute_patch

    with pytest.raises(HyperParamsError, match=r"hparams/PaCKE/, or call apply_packe_plus_to_model"):
        apply_packe_to_model(None, None, [], PaCKEPlusHyperParams())
    with pytest.raises(HyperParamsError, match=r"hparams/PaCKE\+/, or call apply_packe_to_model"):
        apply_packe_plus_to_model(None, None, [], PaCKEHyperParams())
    with pytest.raises(HyperParamsError, match="expected PaCKEHyperParams or PaCKEPlusHyperParams, got dict"):
        compute_patch(None, None, [], {})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("context_share", 1.5, r"expected a number from 0 to 1, got 1\.5; use 1 for all"),
        ("layers", [-1], r"expected a list of int \(0 or more\) or null, got \[-1\]"),
        ("context_margin", float("nan"), "expected a finite number, got nan"),
        ("context_margin", True, r"expected float, got True \(bool\)"),
        ("orders", 7, "expected at most 6, got 7; there are no more"),
        ("subject_contexts", 11, "expected at most 10, got 11"),
    ],
)
def test_wrong_values_are_refused_in_words(field, value, message):
    with pytest.raises(HyperParamsError, match=f"{field}: {message}"):
        PaCKEPlusHyperParams(**{field: value})
