"""The notebook runs from top to bottom, and shows what it is committed with."""

import importlib.util
import re

import pytest

from ..conftest import ROOT

nbformat = pytest.importorskip("nbformat")
NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"


def cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell):
    """The text of each output, and of what kinds it is; of pictures the kind alone."""
    return [
        (o.get("name") or sorted(o.data), o.get("text") or o.data.get("text/plain", "").partition("object")[0])
        for o in cell.outputs
    ]


@pytest.fixture(scope="module")
def committed():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_every_cell_was_run_in_order_and_none_complained(committed):
    assert [cell.execution_count for cell in cells(committed)] == list(range(1, len(cells(committed)) + 1))
    outputs = [o for cell in cells(committed) for o in cell.outputs]
    assert {o.output_type for o in outputs} <= {"stream", "execute_result", "display_data"}
    assert {o.name for o in outputs if o.output_type == "stream"} == {"stdout"}
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 2


def test_it_is_small_and_names_no_machine():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 500_000
    no_pictures = re.sub(r'"image/png": ".*?"', "", text)
    assert (
        re.findall(r"(?:/(?:home|tmp|root|usr|opt|var|work|Users)/|site-packages|[A-Z]:\\\\)[^\"]*", no_pictures) == []
    )


def test_its_links_lead_somewhere(committed):
    found = re.findall(r"\]\(([^)#\s]+)", "".join(cell.source for cell in committed.cells))
    assert found
    assert [link for link in found if not (NOTEBOOK.parent / link).exists()] == []


def is_of_another_package(output):
    """A warning of what will be gone from some package, which changes with its version."""
    text = output.get("text", "")
    return output.get("name") == "stderr" and "FutureWarning" in text and "easyedit_packe" not in text


@pytest.mark.slow
def test_it_shows_what_it_is_committed_with(committed):
    pytest.importorskip("nbclient")
    spec = importlib.util.spec_from_file_location("execute", ROOT / "notebooks" / "execute.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    again = module.executed(NOTEBOOK)
    for cell in cells(again):
        cell.outputs = [output for output in cell.outputs if not is_of_another_package(output)]
    assert [shown(cell) for cell in cells(again)] == [shown(cell) for cell in cells(committed)]
