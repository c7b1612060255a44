"""What tests of several modules here ask for."""

import pytest
import transformers

from ..families import FAMILIES


@pytest.fixture(params=FAMILIES)
def family(request):
    """The name of every family that this transformers has."""
    if not hasattr(transformers, FAMILIES[request.param].model):
        pytest.skip(f"transformers {transformers.__version__} does not have it")
    return request.param
