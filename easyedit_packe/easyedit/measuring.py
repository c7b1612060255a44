"""What EasyEdit's methods can be asked to measure: what one of them would pass over in silence is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import EasyEditError, one_of

BY_COLUMNS = {"edit", "batch_edit", "generate_edit"}
ONE_BY_ONE = {"edit", "edit_requests"}
HEED: dict[str, tuple[set[str], set[str]]] = {
    "eval_metric": (ONE_BY_ONE, {"edit_requests"}),
    "test_generation": (ONE_BY_ONE | BY_COLUMNS, ONE_BY_ONE | {"batch_edit"}),
    "locality_inputs": (BY_COLUMNS, {"edit"}),
    "portability_inputs": (BY_COLUMNS, {"edit"}),
    "requests": ({"edit_requests", "generate_edit"}, {"edit_requests"}),
    "pre_edit": (ONE_BY_ONE | {"generate_edit"}, set()),
    "pre_file": (ONE_BY_ONE | {"generate_edit"}, set()),
    "metric_kwargs": (ONE_BY_ONE, set()),
}
"""Option -> the methods that act on it, of HEAD and of the PyPI release. Their `**kwargs` swallow it everywhere."""

METRICS = ({"ppl", "ood_ppl"}, {"ppl"})
"""Values of `eval_metric` besides token accuracy, which has two names."""
TOKEN_ACCURACY = {"token_em", "exact match"}
EVALUATION_TYPES = ("LLM-judge", "generate-text")
"""Values of `hparams.evaluation_type` that HEAD knows; any other, and any at all in the PyPI release, is not read."""


def check_measuring(method: str, options: Mapping[str, Any], hparams: Any, pypi: bool, release: str) -> None:
    """Refuse, before anything is measured or edited, what would be left unmeasured.

    Args:
        method: name of `BaseEditor`'s method.
        options: its keyword arguments.
        pypi: the release is that of PyPI.
        release: its name, for messages.

    Raises:
        EasyEditError: the method, or the release, does not act on an option that is set, or lacks what it needs.
    """
    for option in options.keys() & HEED.keys():
        if not options[option] or (option == "eval_metric" and options[option] in TOKEN_ACCURACY):
            continue
        able = HEED[option][pypi]
        if method not in able:
            others = f"these do: {', '.join(sorted(able))}" if able else "take EasyEdit's HEAD (packe easyedit install)"
            raise EasyEditError(f"{method} of {release} does not act on {option!r}; {others}.")
    metric = options.get("eval_metric")
    if metric and metric not in METRICS[pypi] | TOKEN_ACCURACY:
        raise EasyEditError(f"{release} has no eval_metric {metric!r}; {one_of(metric, sorted(METRICS[pypi]))}.")
    kind = getattr(hparams, "evaluation_type", None)
    if kind and pypi:
        raise EasyEditError(
            f"{release} does not act on evaluation_type, got {kind!r}; take EasyEdit's HEAD (packe easyedit install), "
            "or packe bench, which also measures what a model says freely."
        )
    if kind and kind not in EVALUATION_TYPES:
        raise EasyEditError(
            f"no evaluation_type {kind!r}; {one_of(kind, list(EVALUATION_TYPES))}; None is token accuracy."
        )
    if options.get("test_generation"):
        _need_words(release)


def _need_words(release: str) -> None:
    """EasyEdit splits what a model writes into words by NLTK, which has its data from elsewhere."""
    import nltk

    try:
        nltk.word_tokenize("a word")
    except LookupError as e:
        raise EasyEditError(
            f"test_generation of {release} needs NLTK's data for splitting text into words, which is not here: "
            "python -m nltk.downloader punkt_tab"
        ) from e
