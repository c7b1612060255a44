"""Every step of a plan on a small random model of the same architecture, on a CPU, without any network."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import PaCKEError, said_of
from ...registry import register
from ..runner import run
from .models import configuration
from .network import no_network
from .parts import Part
from .plan import Item, Where, hyper_parameters, items
from .tiny import FACTS, make_data, make_model

Say = Callable[[str], None]
STATISTICS = 4000
"""Tokens of which a small model's second moments are made."""

STEPS = 5
"""Of a training or a search, at the most: one step more is the same code again."""


@dataclass(frozen=True)
class Trial:
    """One step: what was tried, why it failed (empty: it did not), and how long it took."""

    what: str
    reason: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.what:<58} {self.seconds:6.1f} s  {'ok' if not self.reason else f'FAILED: {self.reason}'}"


def dry_run(where: Where, parts: Sequence[Part], say: Say = print) -> list[Trial]:
    """Try the configurations, a model of this architecture, its statistics, and every run on two records.

    Args:
        where: of the real run; only the model's name and configuration are taken from it.
        say: gets each step's line as soon as it is done.

    Raises:
        FetchError: the architecture is not known. EasyEditError: no EasyEdit.
    """
    trials: list[Trial] = []

    def trial(what: str, step: Callable[[], Any]) -> bool:
        start, reason = time.perf_counter(), ""
        with no_network() as attempts:
            try:
                step()
            except Exception as e:
                reason = said_of(e)
        if attempts and not reason:
            reason = f"it tried to reach {', '.join(dict.fromkeys(attempts))}"
        trials.append(Trial(what, " ".join(reason.split()), time.perf_counter() - start))
        say(str(trials[-1]))
        return not reason

    register()  # finds EasyEdit, before the cache becomes another folder
    config = configuration(where)
    for editor in dict.fromkeys(editor for part in parts for editor in part.editors):
        trial(f"{editor}: the hyper-parameters for {where.name}", partial(hyper_parameters, editor, where))
    with _elsewhere() as folder:
        small = Where(
            where.name, str(folder / where.name), {}, str(folder / "runs"), "float32", str(folder / "stats"), "cpu"
        )
        if not trial(f"a small random {config.model_type}", lambda: make_model(config, folder / where.name)):
            return trials
        small = dataclasses.replace(small, files=make_data(folder))
        moments = sorted({layer for part in parts for editor in part.editors for layer in _layers(editor, small)})
        if moments:
            what = f"its second moments, layers {', '.join(map(str, moments))}"
            trial(what, lambda: _make_statistics(small, moments))
        for item in _tried(parts):
            trial(f"{item.part.name}: {item.editor}, {item.data}", partial(_run, item, small))
    return trials


def _tried(parts: Sequence[Part]) -> Iterator[Item]:
    """Every run; where a part only measures time, of one data set."""
    for part in parts:
        yield from (i for i in items(part, FACTS) if part.generation or i.data == part.data[0])


def _run(item: Item, where: Where) -> None:
    settings, given = item.settings(where), hyper_parameters(item.editor, where)
    steps = {name: getattr(given, name, 0) for name in ("num_steps", "v_num_grad_steps")}
    settings.hparams |= {name: STEPS for name, number in steps.items() if number > STEPS}
    run(settings.check())
    if not item.is_done(where):
        raise PaCKEError(f"expected a row for each of {FACTS} records, got fewer; look into the editor's refusals.")


def _layers(editor: str, where: Where) -> list[int]:
    with contextlib.suppress(PaCKEError):  # which was its own trial
        h = hyper_parameters(editor, where)
        return list(h.layers) if getattr(h, "mom2_adjustment", False) else []
    return []


def _make_statistics(where: Where, layers: Sequence[int]) -> None:
    from ...easyedit.statistics import compute_stats
    from ...model.load import load

    model, tok = load(str(where.weights))
    compute_stats(model, tok, "self", layers, tokens=STATISTICS, root=where.stats_dir)


@contextlib.contextmanager
def _elsewhere() -> Iterator[Path]:
    """An empty folder, to which this package's cache belongs as well, and in which EasyEdit writes its logs."""
    here, cache = Path.cwd(), os.environ.get("PACKE_CACHE")
    with tempfile.TemporaryDirectory(prefix="packe-dry-run-") as name:
        os.environ["PACKE_CACHE"] = str(Path(name) / "cache")
        os.chdir(name)
        try:
            yield Path(name)
        finally:
            os.chdir(here)
            if cache is None:
                del os.environ["PACKE_CACHE"]
            else:
                os.environ["PACKE_CACHE"] = cache
