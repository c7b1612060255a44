"""The picture of the front page shows the nodes that the edit of the front page changes."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from easyedit_packe import PaCKEHyperParams, compute_patch

from .pages import DOCS


@pytest.fixture
def make_path():
    spec = importlib.util.spec_from_file_location("make_path", DOCS / "images" / "make_path.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_it_shows_the_nodes_that_the_edit_changes(make_path):
    model, tok = make_path.load(make_path.MODEL)
    hparams = PaCKEHyperParams.from_hparams(make_path.MODEL)
    ffn, scores, nodes = make_path.traced(model, tok, hparams)
    patch = compute_patch(model, tok, [make_path.REQUEST], hparams)
    for m in ffn.modules:
        shown = torch.cat([nodes.critical[m.name], nodes.negative[m.name]]).sort().values
        assert torch.equal(shown, patch.slices[f"{m.name}.weight"].index.sort().values)
        assert scores[m.name][nodes.critical[m.name][0]] == scores[m.name].max()


@pytest.mark.slow
def test_it_is_drawn_as_wide_as_the_file(make_path):
    model, tok = make_path.load(make_path.MODEL)
    hparams = PaCKEHyperParams.from_hparams(make_path.MODEL)
    figure = make_path.draw(*make_path.traced(model, tok, hparams))
    width, height = (round(inches * figure.dpi) for inches in figure.get_size_inches())
    header = make_path.PICTURE.read_bytes()[16:24]
    assert (int.from_bytes(header[:4], "big"), int.from_bytes(header[4:], "big")) == (width, height)
