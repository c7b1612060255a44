"""The `packe` command, as a shell runs it."""

import json
import subprocess
import sys
from pathlib import Path

PACKE = Path(sys.executable).parent / "packe"


def packe(*arguments, **environment):
    import os

    return subprocess.run([str(PACKE), *arguments], capture_output=True, text=True, env={**os.environ, **environment})


def test_help_shows_examples():
    assert "easyedit" in packe("--help").stdout
    assert "Example: packe easyedit install" in packe("easyedit", "install", "--help").stdout


def test_show_in_words_and_as_json():
    shown = json.loads(packe("easyedit", "show", "--json").stdout)
    assert packe("easyedit", "show").stdout.startswith(f"EasyEdit {shown['version']}")
    assert Path(shown["root"], "easyeditor").is_dir()


def test_errors_are_one_line_and_a_code(tmp_path):
    run = packe("model", "fetch", "smollm")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("packe: no model 'smollm' to fetch; did you mean 'smollm2-135m'")
    assert run.stderr.count("\n") == 1
    run = packe("easyedit", "show", EASYEDIT_HOME=str(tmp_path))
    assert run.returncode == 1
    assert "EASYEDIT_HOME" in run.stderr
    assert packe("easyedit", "shew").returncode == 2


def test_install_from_a_path(tmp_path):
    root = json.loads(packe("easyedit", "show", "--json").stdout)["root"]
    run = packe("easyedit", "install", "--path", root, "--json", PACKE_CACHE=str(tmp_path), EASYEDIT_HOME="")
    assert Path(json.loads(run.stdout)["root"]) == Path(root)
    assert (tmp_path / "EasyEdit").resolve() == Path(root)


def test_many_requests_as_json_then_merge_and_show(tmp_path):
    requests = [
        {"prompt": "{} is located in the city of", "subject": "The Eiffel Tower", "target_new": "Rome"},
        {"prompt": "The chemical symbol for gold is", "target_new": "Zn", "rephrase_prompt": "Gold is written as"},
    ]
    (tmp_path / "facts.json").write_text(json.dumps(requests))
    out = tmp_path / "p.safetensors"
    run = packe("edit", "--requests", str(tmp_path / "facts.json"), "--out", str(out), "--json")
    result = json.loads(run.stdout)
    assert [e["efficacy"] for e in result["edits"]] == [1.0, 1.0]
    assert result["edits"][0]["before"].startswith("Paris")
    assert result["edits"][0]["after"].startswith("Rome")
    assert len(result["edits"][1]["generality"]) == 1
    shown = json.loads(packe("show", str(out), "--json").stdout)
    assert [r["target_new"] for r in shown["requests"]] == ["Rome", "Zn"]
    assert len(shown["norm_by_layer"]) == 30
    assert "█" in packe("show", str(out)).stdout
    assert packe("merge", str(out), "--out", str(tmp_path / "m.safetensors")).returncode == 0
    assert packe("merge", str(out), str(out), "--out", str(tmp_path / "n.safetensors")).returncode == 1


def test_bad_input_of_the_patch_commands(tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    for arguments, message in [
        (["show", str(tmp_path / "bad.safetensors")], "expected a safetensors file"),
        (["show", str(tmp_path / "none.safetensors")], "cannot be read"),
        (["edit", "--prompt", "a", "--out", "x"], "expected --prompt and --target"),
        (["edit", "--prompt", "a", "--target", "", "--out", "x"], "non-empty text"),
        (["edit", "--requests", str(tmp_path / "bad.safetensors"), "--out", "x"], "JSON"),
        (["ask", "--model", "nowhere", "hello"], "no model 'nowhere'"),
        (
            ["edit", "--prompt", "a", "--target", "b", "--model", str(tmp_path), "--out", "x"],
            "name some with --hparams",
        ),
    ]:
        run = packe(*arguments)
        assert run.returncode == 1, arguments
        assert message in run.stderr
        assert "Traceback" not in run.stderr
