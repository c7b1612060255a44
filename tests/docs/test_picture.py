"""The picture of the front page is of the edit of the front page, and drawn as wide as the file."""

from __future__ import annotations

import importlib.util

import pytest

from easyedit_packe import PaCKEHyperParams, trace_requests
from easyedit_packe.model.load import load
from easyedit_packe.trace.picture import draw_path

from .pages import DOCS


@pytest.fixture
def make_path():
    spec = importlib.util.spec_from_file_location("make_path", DOCS / "images" / "make_path.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_it_is_drawn_as_wide_as_the_file(make_path):
    hparams = PaCKEHyperParams.from_hparams(make_path.MODEL)
    (trace,) = trace_requests(*load(make_path.MODEL), [make_path.REQUEST], hparams)
    figure = draw_path(trace)
    width, height = (round(inches * figure.dpi) for inches in figure.get_size_inches())
    header = make_path.PICTURE.read_bytes()[16:24]
    assert (int.from_bytes(header[:4], "big"), int.from_bytes(header[4:], "big")) == (width, height)
