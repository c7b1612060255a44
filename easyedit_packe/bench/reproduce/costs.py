"""What a run costs: passes through the model and solved systems, priced by a GPU's data sheet.

An estimate, and above what is to be expected: no search is taken to end early. docs/reproduce.md has the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .machine import BYTES, Machine
from .models import Sizes
from .plan import Item, every

ASSUMED: dict[str, tuple[float, str]] = {
    "COMPUTE": (0.6, "share of the data sheet's operations a second that large products reach"),
    "READ": (0.6, "share of its bandwidth that reading weights reaches"),
    "DECOMPOSE": (0.1, "share of its float64 operations that a singular value decomposition reaches"),
    "LAUNCH": (9e-5, "seconds that a layer's kernels take to start, however small"),
    "TEXT": (16, "tokens of a prompt with its answer"),
    "ANSWER": (3, "tokens of an answer"),
    "PREFIX": (10, "tokens of a random prefix that an editor puts before a prompt"),
    "TEXTS": (16, "texts that are measured of a record"),
    "SPOKEN": (10, "passes in which a record's free answers are found"),
    "SHORT": (330, "tokens of held-out text that are read after a single edit, in 6 passes"),
    "WHOLE": (4500, "tokens that are read otherwise, in 12 passes"),
    "COMPARED": (8, "times that all weights are read in order to compare them, for each call"),
    "DISK": (1e9, "bytes a second from and to the disk, and through the digest of all weights"),
}
"""Name -> value and meaning: what is assumed, and not measured."""
A = {name: value for name, (value, _) in ASSUMED.items()}


@dataclass(frozen=True)
class Pass:
    """Texts through the model, forward or backward.

    Attributes:
        times: how often.
        tokens: in each.
        reads: how often all weights are read for it, if not `times`: two backward passes may read them once.
    """

    times: float
    tokens: float
    reads: float | None = None


@dataclass(frozen=True)
class Work:
    """What one call of an editor does.

    Attributes:
        passes: through the model.
        single, double: operations beside these, in float32 and in float64.
        decomposed: operations of singular value decompositions, in float64.
        extra: bytes that it holds beside the weights and their copy.
        written: weights that differ afterwards, and are saved when a run of consecutive edits saves them.
    """

    passes: tuple[Pass, ...]
    single: float = 0
    double: float = 0
    decomposed: float = 0
    extra: float = 0
    written: float = 0


def _ft(h: Any, s: Sizes, call: int, b: int) -> Work:
    """Each step a forward pass, and a backward pass down to the layer that is trained; Adam on its matrix."""
    back = (s.layers - min(h.layers)) / s.layers
    matrix = s.hidden * s.intermediate * len(h.layers)
    passes = (Pass(h.num_steps * (1 + back), call * A["TEXT"]),)
    return Work(passes, extra=4 * matrix * b + back * _activations(s, call * A["TEXT"], b), written=matrix)


def _lora(h: Any, s: Sizes, call: int, b: int) -> Work:
    """Each step forward, forward again (checkpointing) and backward, request by request."""
    adapted = s.layers * len(h.target_modules) * s.hidden * s.hidden
    passes = (Pass(3 * h.num_steps * call, A["TEXT"]),)
    return Work(passes, extra=_activations(s, A["TEXT"], b), written=adapted)


def _kn(h: Any, s: Sizes, call: int, b: int) -> Work:
    """For each layer and token of the answer: once plain, then an integral of `steps` rows, forward and backward."""
    rows = min(h.batch_size, h.steps)
    times = s.layers * A["ANSWER"]
    passes = (Pass(times, A["TEXT"]), Pass(2 * times * h.steps / rows, rows * A["TEXT"]))
    return Work(passes, extra=_activations(s, rows * A["TEXT"], b), written=s.layers * s.hidden)


def _rome(h: Any, s: Sizes, call: int, b: int) -> Work:
    """A search for the value over all prefixes and one text more, forward and backward; then the key over them."""
    prefixes = 1 + sum(n for _, n in h.context_template_length_params)
    long = A["TEXT"] + A["PREFIX"]
    passes = (Pass(2 * h.v_num_grad_steps, (prefixes + 1) * long), Pass(1, prefixes * long), Pass(2, A["TEXT"]))
    matrix = s.hidden * s.intermediate
    return Work(passes, extra=3 * matrix * b + _activations(s, (prefixes + 1) * long, b), written=matrix)


def _memit(h: Any, s: Sizes, call: int, b: int) -> Work:
    """The same for each request with six prefixes; then for each layer the keys, the residual and a system of M
    equations in float64."""
    long, layers, m = A["TEXT"] + A["PREFIX"], len(h.layers), s.intermediate
    passes = (
        Pass(2 * h.v_num_grad_steps * call, 7 * long),
        Pass(layers, call * 6 * long),
        Pass(layers, call * A["TEXT"]),
    )
    matrix = s.hidden * m * layers
    extra = 3 * 8 * m**2 + 2 * matrix * b + _activations(s, 7 * long, b)
    return Work(passes, double=layers * (2 / 3 * m**3 + 4 * m**2 * call), extra=extra, written=matrix)


def _alphaedit(h: Any, s: Sizes, call: int, b: int) -> Work:
    """MEMIT's, but its systems are in float32, with D right sides and a projection more."""
    base, layers, m = _memit(h, s, call, b), len(h.layers), s.intermediate
    single = layers * (2 * m**3 + 2 / 3 * m**3 + 2 * m**2 * (call + s.hidden))
    return Work(base.passes, single=single, extra=base.extra, written=base.written)


def _prune(h: Any, s: Sizes, call: int, b: int) -> Work:
    """MEMIT's, and the singular values of each matrix and of its update."""
    base = _memit(h, s, call, b)
    decomposed = len(h.layers) * 2 * 20 * s.hidden**2 * s.intermediate
    return Work(base.passes, 0, base.double, decomposed, base.extra, base.written)


def _packe(h: Any, s: Sizes, call: int, b: int) -> Work:
    """Each step a forward pass, and a backward pass for two terms that read the weights once; every few steps a pass
    forward and backward to trace."""
    rows = min(h.edit_batch_size or call, call)
    batches = math.ceil(call / rows)
    traced = math.ceil(h.num_steps / (h.retrace_every or h.num_steps)) * batches
    steps, tokens = h.num_steps * batches, rows * A["TEXT"]
    slices = 2 * s.layers * s.hidden * (h.num_critical_paths + h.num_negative_paths)
    extra = 8 * 4 * slices * min(call, 100) + _activations(s, tokens, b)
    passes = (Pass(3 * steps, tokens, 2 * steps), Pass(2 * traced, tokens))
    return Work(passes, extra=extra, written=2 * s.layers * s.hidden * s.intermediate)


EDITORS: dict[str, Callable[[Any, Sizes, int, int], Work]] = {
    "FT-C": _ft, "LoRA": _lora, "KN": _kn, "ROME": _rome, "R-ROME": _rome, "MEMIT": _memit, "PMET": _memit,
    "EMMET": _memit, "PRUNE": _prune, "RECT": _memit, "AlphaEdit": _alphaedit, "PaCKE": _packe,
}  # fmt: skip
"""Every editor that the paper compares: (hyper-parameters, sizes, requests in a call, bytes of a weight) -> work."""


def _activations(s: Sizes, tokens: float, b: int) -> float:
    """Bytes that a backward pass needs: of each layer about 8 D and 3 M a token, and three copies of the logits."""
    return tokens * (s.layers * (8 * s.hidden + 3 * s.intermediate) * b + 3 * 4 * s.vocabulary)


@dataclass(frozen=True)
class Cost:
    """Of a run, estimated: seconds on one GPU, bytes on it at the most, and of both what an edit takes."""

    seconds: float
    bytes: float
    per_edit: float


def cost(item: Item, hparams: Any, sizes: Sizes, machine: Machine, dtype: str = "float32") -> Cost:
    """Of one run on one GPU.

    Returns:
        seconds: to load and compare the weights, to measure the unedited model and every record, to edit, and to save.
        bytes: the weights, the benchmark's copy of them, and what the editor holds beside them.
    """
    b = BYTES[dtype]
    call = item.call
    work, calls = EDITORS[item.editor](hparams, sizes, call, b), math.ceil(item.n / call)
    weights = sizes.weights * b
    compared = A["COMPARED"] * weights / (machine.bandwidth * 1e9 * A["READ"])
    edit = work_seconds(work, sizes, machine, dtype) + compared
    rolled_back = item.part.protocol != "consecutive"
    held_out = Pass(6, A["SHORT"] / 6) if item.part.protocol == "single" else Pass(12, A["WHOLE"] / 12)
    record = [Pass(1, A["TEXTS"] * A["TEXT"]), *([Pass(A["SPOKEN"], 2)] if item.part.generation else [])]
    whole = [Pass(18, (A["SHORT"] + A["WHOLE"]) / 18)]
    seconds = 2 * weights / A["DISK"] + _passes(whole, sizes, machine, dtype)
    seconds += calls * edit + 2 * item.n * _passes(record, sizes, machine, dtype)
    seconds += (calls if rolled_back else 1) * _passes([held_out], sizes, machine, dtype)
    if not rolled_back:
        saves = item.n // every(item.n)
        seconds += saves * work.written * b / A["DISK"]
    return Cost(seconds, 2 * weights + work.extra, edit / call)


def work_seconds(work: Work, sizes: Sizes, machine: Machine, dtype: str) -> float:
    """Of one call of an editor."""
    tera = 1e12 * A["COMPUTE"]
    beside = work.single / (machine.full * tera) + work.double / (machine.double * tera)
    beside += work.decomposed / (machine.double * 1e12 * A["DECOMPOSE"])
    return _passes(work.passes, sizes, machine, dtype) + beside


def _passes(passes: Any, sizes: Sizes, machine: Machine, dtype: str) -> float:
    """The longest of three: to multiply, to read the weights, to start the kernels."""
    total = 0.0
    for p in passes:
        multiply = p.times * 2 * sizes.used * p.tokens / (machine.tera(dtype) * 1e12 * A["COMPUTE"])
        reads = p.times if p.reads is None else p.reads
        read = reads * sizes.used * BYTES[dtype] / (machine.bandwidth * 1e9 * A["READ"])
        total += max(multiply, read, p.times * sizes.layers * A["LAUNCH"])
    return total
