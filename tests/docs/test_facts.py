"""What the documentation says of fields, settings, files and messages is what the code says."""

from __future__ import annotations

import ast
import dataclasses
import re
from functools import cache
from typing import Any

import pytest
import yaml

from easyedit_packe import PaCKEHyperParams, PaCKEPlusHyperParams
from easyedit_packe.config import HyperParams
from easyedit_packe.config.files import shipped_dir
from easyedit_packe.model.blocks import EXPERTS, FORMS

from ..conftest import ROOT
from ..families import FAMILIES
from .pages import DOCS, prose, quoted, table, text_of

PACKAGE = ROOT / "easyedit_packe"
SHARED = {field.name for field in dataclasses.fields(HyperParams)}


def defaults(cls: type) -> dict[str, Any]:
    made = cls()
    return {field.name: getattr(made, field.name) for field in dataclasses.fields(cls)}


def same(text: str, value: Any) -> bool:
    """Whether a default is what a page says it is; YAML 1.1 reads 1e-5 as text."""
    read = yaml.safe_load(text)
    return (float(read) if isinstance(value, float) else read) == value


@pytest.mark.parametrize(
    ("page", "cls"), [("paper.md", PaCKEHyperParams), ("plus.md", PaCKEPlusHyperParams)], ids=["PaCKE", "PaCKE+"]
)
def test_fields_are_complete_and_their_defaults_right(page, cls):
    rows = {quoted(row["field"])[0]: quoted(row["default"])[0] for row in table(page, "field")}
    known = {name: value for name, value in defaults(cls).items() if name not in SHARED}
    assert list(rows) == list(known)
    assert [name for name, text in rows.items() if not same(text, known[name])] == []


def test_choices_that_a_field_has_are_among_those_that_are_named():
    for page, cls in (("paper.md", PaCKEHyperParams), ("plus.md", PaCKEPlusHyperParams)):
        meanings = {quoted(row["field"])[0]: row["meaning"] for row in table(page, "field")}
        (default,) = {"paper.md": ["joint"], "plus.md": ["from_subject"]}[page]
        field = {"paper.md": "contrast_step", "plus.md": "write_at"}[page]
        for other in quoted(meanings[field]):
            if other != default:
                cls(**{field: other})


def test_where_paper_and_program_differ_is_what_authors_program_changes():
    paper, program = PaCKEHyperParams(score="gradient_sum"), PaCKEHyperParams(score="gradient_sum").authors_program()
    changed = {f.name for f in dataclasses.fields(paper) if getattr(paper, f.name) != getattr(program, f.name)}
    (rows,) = [rows for rows in [table("paper.md", "")]]
    named = {name for row in rows for name in quoted(row["field"])}
    assert changed <= named
    assert named - changed == {"num_steps"}  # the number of epochs is the user's


def test_settings_of_the_benchmark_are_complete_and_their_defaults_right():
    from easyedit_packe.bench.settings import Settings

    rows: dict[str, str] = {}
    for row in table("benchmark.md", "setting"):
        names = quoted(row["setting"])
        values = [*quoted(row["default"]), *(["''"] * row["default"].count("empty"))]
        rows |= dict(zip(names, values, strict=True))
    known = defaults(Settings)
    known["data_dir"] = known["data_dir"].removeprefix("${oc.env:PACKE_DATA,").removesuffix("}")
    assert set(rows) == set(known)
    assert [name for name, text in rows.items() if not same(text, known[name])] == []


def test_protocols_and_editors_are_those_of_the_benchmark():
    from easyedit_packe.bench.editors import EDITORS, PROTOCOLS

    assert tuple(quoted(row["protocol"])[0] for row in table("benchmark.md", "protocol")) == PROTOCOLS
    (listed,) = re.findall(r"^Editors: (.+?)\. ", prose("benchmark.md"), re.MULTILINE)
    assert listed.split(", ") == list(EDITORS)
    epochs = [name for name, editor in EDITORS.items() if "epochs" not in editor.cannot]
    assert f"({', '.join(epochs)})" in prose("benchmark.md")


def test_models_are_those_that_hyper_parameters_are_shipped_for():
    shipped = shipped_dir()
    rows = {quoted(row["name"])[0]: row for row in table("models.md", "name")}
    assert set(rows) == {file.stem for file in (shipped / "PaCKE").glob("*.yaml")}
    own = ("PaCKE", "PaCKE+")
    others = {folder.name for folder in shipped.iterdir() if folder.name not in own}
    for name, row in rows.items():
        for editor in own:
            file = shipped / editor / f"{name}.yaml"
            needs = (
                re.findall(r"needs a GPU with about (.+?)\.(?:\s|$)", file.read_text("utf-8")) if file.is_file() else []
            )
            assert row[f"{editor} needs"] == (needs[0] if needs else "nothing special" if file.is_file() else "/")
        have = {editor for editor in others if (shipped / editor / f"{name}.yaml").is_file()}
        listed = row["other editors shipped"]
        assert have == (others if listed == "all" else set() if listed == "/" else set(listed.split(", ")))
        assert row["run here"].startswith("yes") == (
            "Runs on a CPU" in (shipped / "PaCKE" / f"{name}.yaml").read_text()
        )


def test_architectures_are_those_of_the_forms_and_of_the_tests():
    rows = {row["block"]: row for row in table("models.md", "block")}
    assert list(rows) == [*FORMS, EXPERTS]
    for name, form in FORMS.items():
        assert quoted(rows[name]["keys, values"]) == [form.key, form.value]
        assert quoted(rows[name]["gate"]) == [form.gate] * (form.gate is not None)
        assert ("half" in rows[name]["gate"]) == form.packed
    for name, row in rows.items():
        listed = quoted(row["families (`model_type`)"])
        assert sorted(listed) == sorted(k for k, family in FAMILIES.items() if family.form == name)
    assert re.findall(r"random models of (\d+) families", text_of(ROOT / "README.md")) == [str(len(FAMILIES))]


def test_what_is_served_is_what_the_export_knows():
    from easyedit_packe.patch.lora import VLLM_RANKS
    from easyedit_packe.patch.lora_gguf import ARCHITECTURES

    page = " ".join(prose("serving.md").split())
    assert f"lists the {len(ARCHITECTURES)} families" in page
    assert f"is one of {', '.join(map(str, VLLM_RANKS[:-1]))} and {VLLM_RANKS[-1]}." in page


def test_extras_are_those_of_the_package():
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    (extras,) = [
        node.value for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "extras_require"
    ]
    named = [quoted(row["extra"]) for row in table("install.md", "extra")]
    assert sorted(name for names in named for name in names) == sorted(ast.literal_eval(extras))


@cache
def messages() -> str:
    """Every text constant of the package, those of f-strings piece by piece."""
    found = []
    for file in PACKAGE.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found += [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return "\n".join(found)


def test_messages_that_are_explained_are_messages_of_the_package():
    explained = re.findall(r"^\*\*(\".+?)\*\*", text_of("troubleshooting.md"), re.MULTILINE)
    assert len(explained) > 8
    for quote in explained:
        for message in re.findall(r'"([^"]+)"', quote):
            for piece in message.rstrip(".").split(" ... "):
                assert piece.rstrip(".") in messages(), message


def test_commands_that_are_named_exist():
    from typer.main import get_command

    from easyedit_packe.cli.app import app

    command = get_command(app)
    known = {(name,) for name in command.commands}
    known |= {(g, n) for g, group in command.commands.items() for n in getattr(group, "commands", {})}
    for page in [ROOT / "README.md", *DOCS.glob("*.md")]:
        for words in re.findall(r"(?:^|`|\$ )packe ((?:[a-z]+ ?){1,2})", text_of(page), re.MULTILINE):
            first, *rest = words.split()
            assert (first,) in known, f"{page.name}: packe {words}"
            if hasattr(command.commands[first], "commands") and rest:
                assert (first, rest[0]) in known, f"{page.name}: packe {words}"
