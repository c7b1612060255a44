"""`PaCKEHyperParams`: every setting of the editor, in one validated dataclass."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from .errors import HyperParamsError, one_of

Score = Literal["zscore", "gradient_sum", "gradient_norm"]


@dataclass
class PaCKEHyperParams:
    """Settings of PaCKE. Defaults are the paper's; section numbers are the paper's too.

    Where the paper and its authors' program differ, a field names both sides; `authors_program()` sets
    them all to the program's.
    """

    # What EasyEdit itself reads.
    alg_name: str = "PaCKE"
    """Always "PaCKE"; a YAML written for another editor is refused."""
    model_name: Any = ""
    """Path or hub name of the model; or a `LoadedModel`; or the name of a model that `packe model fetch` knows."""
    device: int | str | None = None
    """CUDA index, or a torch device such as "cpu"; None takes CUDA when it is there and the CPU otherwise."""
    model_parallel: bool = False
    """Let EasyEdit spread the model over all GPUs (`device_map="auto"`)."""
    fp16: bool = False
    """Let EasyEdit load the model in float16. Gradients and updates are float32 all the same."""
    max_length: int = 128
    """Tokens that EasyEdit's metrics keep of a prompt and its answer."""
    batch_size: int = 1
    """Requests that `BaseEditor.batch_edit` hands over in one call. Must be 1 for `edit` in some releases."""

    # Where to edit: tracing, section 3.2.
    score: Score = "zscore"
    """Importance of a node from its gradient G [D, M]: "zscore" (the authors' program), "gradient_sum" (Eq. 6 as
    printed) or "gradient_norm"."""
    num_critical_paths: int = 15
    """|T+|: key nodes and value nodes that are edited in every layer."""
    num_negative_paths: int = 1
    """|T-|: key nodes and value nodes of every layer that the contrastive term trains. 0 drops the term."""
    trace: Literal["call", "request"] = "call"
    """What is traced together: all requests of a call, or each request by itself (then they are edited in turn)."""
    retrace_every: int = 0
    """Trace again after this many passes over the requests (the authors' program: 2). 0 traces once."""

    # How to edit: rectification, section 3.3, Eq. 7.
    contrast_weight: float = 0.1
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
    lr: float = 1e-5
    """Adam's learning rate."""
    weight_decay: float = 0.0
    """L2 pull of every touched vector back to its value in the base model (Adam's `weight_decay` on the change)."""
    num_steps: int = 12
    """Passes over the requests of a call (the paper's epochs)."""
    edit_batch_size: int = 2
    """Requests in one optimiser step; 0 takes all requests of the call."""
    micro_batch_size: int = 16
    """Most requests in one forward pass; 0 sets no limit. Less memory, the same result."""
    trace_matrices: int = 0
    """When what is traced together needs several forward passes: gradient matrices (D x M, float32) that are summed
    at a time. More memory, fewer passes, the same result. 0 takes as many as 5 percent of the model's bytes hold."""
    batch_terms: bool = True
    """Take the gradients of both terms from one batched backward pass: the same result, faster."""
    reuse_trace: bool = True
    """Take the gradients of the step after a tracing from the tracing pass, where that step has all its requests in
    one forward pass: the same result, one pass less."""
    shuffle: bool = False
    """Draw the requests in a new order for each pass, from `seed`."""
    seed: int = 42
    """Seed of that order; nothing else is random."""
    loss_threshold: float | None = None
    """Stop when the mean loss of the first term over a pass is below this; a pass of one step then does not take it.
    None never stops early (the paper)."""

    # PaCKE+: beyond the paper, in `extended.py`. All that follows needs `solver: gauss_newton`.
    solver: Literal["adam", "gauss_newton"] = "adam"
    """How nodes are trained. "adam": on the loss of Eq. 7 (the paper). "gauss_newton": the target has to lead all other
    tokens by `margin`; each of at most `num_steps` steps takes the smallest change by which, to first order, it does.
    `lr` and the fields of Eq. 7 are then not used."""
    margin: float = 1.0
    """Log-odds that each target token must have: 0 is half of all probability. Pushing further costs the neighbours."""
    ridge: float = 0.05
    """Damping of a step, as a share of the texts' mean squared gradient: what is conceded where texts disagree."""
    layers: list[int] | None = None
    """Layers whose nodes may be chosen; null takes all (the paper)."""
    value_nodes: int = 0
    """Value nodes edited in each layer, where that is another number than the key nodes'; 0 takes
    `num_critical_paths`. More of them make the change more specific."""
    write_at: Literal["all", "subject", "subject_and_target"] = "all"
    """Tokens whose gradient chooses and changes nodes: all, only the subject's, where a fact is looked up, or these and
    the target's, where its next token is: a long target need then not be written on the subject as a whole."""
    prefix_contexts: int = 0
    """Ask for the target behind this many short texts sampled from the model, too, so that it does not hang on the
    prompt's position."""
    prefix_tokens: int = 5
    """Length of these texts."""
    subject_contexts: int = 0
    """Ask for the target after this many neutral contexts of the subject ("{} is known for"), too, so that it comes
    however the relation is worded. The price: other facts of the subject are drawn to it."""
    null_space: float = 0.0
    """Weight, in the size of a change, of what it does to the inputs that a module sees in neutral text and about other
    subjects, and at earlier edits. 0 measures the change itself."""
    memory_size: int = 0
    """Earlier calls' edits that are remembered while the model holds them; edits rolled back are forgotten. With
    `null_space` changes are kept off these edits' inputs, apart from those of the same subject: see `replay`."""
    memory_weight: float = 1.0
    """Weight of each of them there, against the neutral text's 1."""
    replay: int = 0
    """Remembered requests about the same subject, at most this many, whose targets must still lead in their own
    prompts. A request that comes again, word for word, replaces the old one."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for f in fields(self):
            setattr(self, f.name, _checked(f.name, getattr(self, f.name), hints[f.name]))
        self._check_ranges()

    def _check_ranges(self) -> None:
        def require(ok: bool, field: str, expected: str, remedy: str) -> None:
            if not ok:
                raise HyperParamsError(f"{field}: expected {expected}, got {getattr(self, field)!r}; {remedy}.")

        require(self.alg_name == "PaCKE", "alg_name", "'PaCKE'", "this configuration is for another editor")
        for field in ("max_length", "batch_size", "num_critical_paths", "num_steps", "prefix_tokens"):
            require(getattr(self, field) >= 1, field, "at least 1", "use a positive whole number")
        for field in (
            "num_negative_paths",
            "retrace_every",
            "edit_batch_size",
            "micro_batch_size",
            "trace_matrices",
            "seed",
            "value_nodes",
            "prefix_contexts",
            "subject_contexts",
            "memory_size",
            "replay",
        ):
            require(getattr(self, field) >= 0, field, "0 or more", "use 0 to switch it off, or a positive number")
        for field in ("contrast_weight", "weight_decay", "margin", "ridge", "null_space", "memory_weight"):
            require(_at_least_zero(getattr(self, field)), field, "a finite number, 0 or more", "use 0 to switch it off")
        require(self.lr > 0 and math.isfinite(self.lr), "lr", "a positive number", "the paper's is 1e-5")
        threshold = self.loss_threshold
        require(threshold is None or threshold > 0, "loss_threshold", "a positive number or null", "null never stops")
        require(
            self.contrast_weight == 0 or self.num_negative_paths > 0,
            "num_negative_paths", "at least 1 while contrast_weight is not 0",
            "set contrast_weight: 0 to drop the contrastive term, or num_negative_paths: 1",
        )  # fmt: skip
        require(
            self.retrace_every == 0 or self.trace == "call",
            "retrace_every", "0 with trace: request",
            "several passes that trace again need trace: call",
        )  # fmt: skip

        self._check_extended(require)

    def _check_extended(self, require: Callable[[bool, str, str, str], None]) -> None:
        if not self.extended:
            for f in fields(self)[[f.name for f in fields(self)].index("solver") :]:
                value = getattr(self, f.name)
                require(value == f.default, f.name, f"{f.default!r} with solver: adam", "or set solver: gauss_newton")
            return
        needed = {"contrast_weight": 0, "retrace_every": 0, "edit_batch_size": 0, "value_bias": "frozen"}
        for field, value in needed.items():
            expected = f"{value!r} with solver: gauss_newton"
            require(getattr(self, field) == value, field, expected, "or set solver: adam")
        require(
            self.replay <= self.memory_size, "replay", "at most memory_size", "raise memory_size to what is replayed"
        )

    @property
    def extended(self) -> bool:
        """Whether this is PaCKE+."""
        return self.solver == "gauss_newton"

    memory = None
    """What PaCKE+ knows from earlier calls: an `EditMemory` once there was one. No setting."""

    @classmethod
    def from_hparams(cls, name_or_path: str | Path) -> PaCKEHyperParams:
        """Read a YAML file, with or without its `.yaml`, or the name of a shipped one such as "llama3-8b".

        Raises:
            HyperParamsError: no such file, not a mapping, an unknown key, or a value that does not fit.
        """
        from omegaconf import OmegaConf

        path = find_yaml(name_or_path, "PaCKE")
        try:
            config = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
        except Exception as e:
            raise HyperParamsError(f"{path} is not readable as YAML: {e}") from e
        if not isinstance(config, dict):
            raise HyperParamsError(f"expected {path} to hold `key: value` lines, got {type(config).__name__}.")
        return cls.from_dict(config, source=str(path))

    @classmethod
    def from_dict(cls, config: dict[str, Any], source: str = "hyper-parameters") -> PaCKEHyperParams:
        """Build from plain values; numbers may arrive as text, as YAML 1.1 reads `1e-5`."""
        if config.get("alg_name") != "PaCKE":
            raise HyperParamsError(
                f"{source}: alg_name: expected 'PaCKE', got {config.get('alg_name')!r}; "
                "this configuration is for another editor, take one from hparams/PaCKE/."
            )
        known = [f.name for f in fields(cls)]
        for key in config:
            if key not in known:
                raise HyperParamsError(f"{source}: unknown key {key!r}; {one_of(key, known)}.")
        try:
            return cls(**config)
        except HyperParamsError as e:
            raise HyperParamsError(f"{source}: {e}") from None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, one entry a field; `from_dict` reads them back."""
        config = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: str(v) if isinstance(v, str) or k == "model_name" else v for k, v in config.items()}

    def authors_program(self) -> PaCKEHyperParams:
        """A copy with every choice on the side of the authors' program (README, "Paper and program")."""
        return type(self)(
            **{
                **{f.name: getattr(self, f.name) for f in fields(self)},
                "score": "zscore",
                "trace": "call",
                "retrace_every": 2,
                "contrast_step": "separate",
                "optimizer_state": "carried",
                "value_bias": "trained",
                "shuffle": True,
            }
        )


def _at_least_zero(x: float) -> bool:
    return math.isfinite(x) and x >= 0


def _checked(field: str, value: Any, kind: Any) -> Any:
    """`value` as the annotated type: text that is a number becomes one, everything else must fit already."""
    if kind is Any:
        return value
    origin = typing.get_origin(kind)
    if origin is Literal:
        allowed = typing.get_args(kind)
        if value not in allowed:
            raise HyperParamsError(f"{field}: {one_of(value, list(allowed))}; got {value!r}.")
        return value
    options = typing.get_args(kind) if origin in (typing.Union, types.UnionType) else (kind,)
    for option in options:
        if option is type(None) and value is None:
            return None
        if option is bool and isinstance(value, bool):
            return value
        if option is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if option is str and isinstance(value, str):
            return value
        if option == list[int] and isinstance(value, list) and all(type(v) is int for v in value):
            return value
    if isinstance(value, str) and (int in options or float in options):
        try:
            number = float(value)
            if float in options:
                return number
            if number.is_integer():
                return int(number)
        except ValueError:
            pass
    expected = " or ".join("null" if o is type(None) else getattr(o, "__name__", str(o)) for o in options)
    raise HyperParamsError(f"{field}: expected {expected}, got {value!r} ({type(value).__name__}); correct its type.")


def shipped_dir() -> Path:
    """The folder with the shipped YAML files: `<ALG>/<model>.yaml`, in a checkout or in an installed package."""
    installed = Path(__file__).parent / "_hparams"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "hparams"


def find_yaml(name_or_path: str | Path, alg_name: str) -> Path:
    """A file that exists as given or with `.yaml` added, or the shipped `<alg_name>/<name>.yaml`.

    Raises:
        HyperParamsError: neither exists; the message names the nearest shipped configurations.
    """
    text = str(name_or_path)
    candidates = [Path(text).expanduser(), Path(text + ".yaml").expanduser()]
    shipped = shipped_dir() / alg_name
    if Path(text).name == text:
        candidates += [shipped / text, shipped / f"{text}.yaml"]
    for path in candidates:
        if path.is_file():
            return path
    names = sorted(p.stem for p in shipped.glob("*.yaml"))
    raise HyperParamsError(
        f"no configuration {text!r} for {alg_name}: not a file, and {one_of(Path(text).stem, names)}."
    )
