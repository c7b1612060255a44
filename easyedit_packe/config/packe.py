"""`PaCKEHyperParams`: every setting of the paper's method, in one validated dataclass."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from .base import Count, Flag, HyperParams, Positive, Rate, Weight
from .files import renamed

Score = Literal["zscore", "gradient_sum", "gradient_norm"]
Rounding = Literal["nearest", "stochastic"]


@dataclass
class PaCKEHyperParams(HyperParams):
    """Settings of PaCKE. Defaults are the paper's; section numbers are the paper's too.

    Where the paper and its authors' program differ, a field names both sides; `authors_program()` sets
    them all to the program's.
    """

    ALG: ClassVar[str] = "PaCKE"

    # Where to edit: tracing, section 3.2.
    score: Score = "zscore"
    """Importance of a node from its gradient G [D, M]: "zscore" (the authors' program), "gradient_sum" (Eq. 6 as
    printed) or "gradient_norm"."""
    num_critical_paths: Count = 15
    """|T+|: key nodes and value nodes that are edited in every layer. 0 leaves the model as it is; all that a layer has
    of a kind, its intermediate size, leave none for T- and train the feed-forward blocks whole."""
    num_negative_paths: Count = 1
    """|T-|: key nodes and value nodes of every layer that the contrastive term trains. 0 drops the term."""
    trace: Literal["call", "request"] = "call"
    """What is traced together: all requests of a call, or each request by itself (then they are edited in turn)."""
    retrace_every: Count = 0
    """Trace again after this many passes over the requests (the authors' program: 2). 0 traces once."""

    # How to edit: rectification, section 3.3, Eq. 7.
    contrast_weight: Weight = 0.1
    """lambda: weight of the contrastive term, which asks negative nodes to keep the unedited answer. 0 drops it."""
    contrast_step: Literal["joint", "separate"] = "joint"
    """"joint": one optimiser step on both terms of Eq. 7, from one forward pass (the paper). "separate": a step on
    the first term, then a new forward pass and a step on the second (the authors' program)."""
    optimizer_state: Literal["fresh", "carried"] = "fresh"
    """"fresh": Adam starts anew at each tracing (the paper). "carried": one Adam lives through the whole call, and
    its momentum goes on moving nodes of earlier tracings (the authors' program)."""
    value_bias: Literal["frozen", "trained"] = "frozen"
    """The bias of a value module belongs to no node: leave it (the paper), or train it whole in every step (the
    authors' program). Only GPT-J and GPT-2 have one."""
    lr: Rate = 1e-5
    """Adam's learning rate."""
    weight_decay: Weight = 0.0
    """L2 pull of every touched vector back to its value in the base model (Adam's `weight_decay` on the change)."""
    num_steps: Positive = 12
    """Passes over the requests of a call (the paper's epochs)."""
    edit_batch_size: Count = 2
    """Requests in one optimiser step; 0 takes all requests of the call."""
    micro_batch_size: Count = 16
    """Most requests in one forward pass; 0 sets no limit. Less memory, the same result."""
    trace_matrices: Count = 0
    """When what is traced together needs several forward passes: gradient matrices (D x M, float32) that are summed
    at a time. More memory, fewer passes, the same result. 0 takes as many as 5 percent of the model's bytes hold."""
    batch_terms: Flag = True
    """Take the gradients of both terms from one batched backward pass: the same result, faster."""
    reuse_trace: Flag = True
    """Take the gradients of the step after a tracing from the tracing pass, where that step has all its requests in
    one forward pass: the same result, one pass less."""
    rounding: Rounding = "nearest"
    """How a half-precision model's new values are rounded: "nearest" loses changes that are small against the weights,
    as the paper's learning rate makes them; "stochastic" draws one of the two values around each, from `seed`
    and the requests, so that a change is kept on average, at the price of noise. Weights in float32 are not rounded."""
    shuffle: Flag = False
    """Draw the requests in a new order for each pass, from `seed`."""
    seed: Count = 42
    """Seed of that order, and of stochastic rounding; nothing else is random."""
    loss_threshold: Rate | None = None
    """Stop when the mean loss of the first term over a pass is below this; a pass of one step then does not take it.
    None never stops early (the paper)."""

    def check(self) -> None:
        self.require(
            self.contrast_weight == 0 or self.num_negative_paths > 0,
            "num_negative_paths", "at least 1 while contrast_weight is not 0",
            "set contrast_weight: 0 to drop the contrastive term, or num_negative_paths: 1",
        )  # fmt: skip
        self.require(
            self.retrace_every == 0 or self.trace == "call",
            "retrace_every", "0 with trace: request",
            "several passes that trace again need trace: call",
        )  # fmt: skip

    @classmethod
    def from_hparams(cls, name_or_path: str | Path) -> Self:
        """See `HyperParams.from_hparams`. Version 0.1's names of PaCKE+ files ("smollm2-135m-plus") give what their
        file is now, a `PaCKEPlusHyperParams`, with a warning."""
        if (new := renamed(name_or_path)) is not None:
            warnings.warn(
                f"{Path(name_or_path).stem} is now hparams/PaCKE+/{new}.yaml: take PaCKEPlusHyperParams.from_hparams"
                f"({new!r}).",
                FutureWarning,
                stacklevel=2,
            )
            found: Any = cls.algorithms["PaCKE+"].from_hparams(new)
            return found
        return super().from_hparams(name_or_path)

    def authors_program(self) -> PaCKEHyperParams:
        """A copy with every choice on the side of the authors' program (docs/paper.md)."""
        return replace(
            self, score="zscore", trace="call", retrace_every=2, contrast_step="separate", optimizer_state="carried",
            value_bias="trained", shuffle=True,
        )  # fmt: skip
