"""SimIE (Guo et al., 2025): any editor, made one for many edits in a row.

Each edit is made of the unedited model, as the editor likes it best. From the edited matrices W_t, and from the
inputs K_t [M, N] that each of them has at the N tokens of the request, SimIE then finds the matrix that gives all
inputs so far what their own edited matrix gave them, changed least from the unedited one. It goes on from edit to
edit as recursive least squares, with P_0 = lambda I:

    P_t = P_(t-1) + K_t K_t^T,    W*_t = W*_(t-1) + (W_t - W*_(t-1)) K_t K_t^T P_t^-1
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from ..config.files import find_yaml, read_yaml
from ..errors import EasyEditError, HyperParamsError
from ..model.hooks import output_hooks
from ..requests import EditRequest, encode
from .weights import Weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DEFAULT_LAMBDA = 1e4
"""EasyEdit's own for models of 7B, where no file says another."""


def settings(hparams: Any, model: str) -> Any:
    """An editor's hyper-parameters with SimIE's `lamHyper`, from `hparams/SimIE/<model>.yaml` where there is one."""
    try:
        value = float(read_yaml(find_yaml(Path(model).name, "SimIE")).get("lamHyper", DEFAULT_LAMBDA))
    except HyperParamsError:
        value = DEFAULT_LAMBDA
    field = ("lamHyper", float, dataclasses.field(default=value, kw_only=True))
    cls = dataclasses.make_dataclass(f"SimIE{type(hparams).__name__}", [field], bases=(type(hparams),))
    return cls(**{f.name: getattr(hparams, f.name) for f in dataclasses.fields(hparams) if f.init})


class SimIE:
    """The sums of one run; the edited matrices themselves are in the model.

    Attributes:
        sums: matrix's name -> P_t [M, M]. A matrix is counted from the first edit on that changes it.
    """

    def __init__(self, weights: Weights, strength: float) -> None:
        self.weights, self.strength = weights, strength
        self.sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def edit(self, model: PreTrainedModel, tok: Any, request: EditRequest, apply: Callable[[], object]) -> None:
        """Bring the model from W*_(t-1) to W*_t.

        Args:
            apply: makes the editor's edit, in place; the model is the unedited one then.

        Raises:
            EasyEditError: the editor changes something else than the weights of linear layers.
        """
        so_far = {name: w.clone() for name, w in self.weights.changed().items()}
        self.weights.restore(model)
        with torch.enable_grad():
            apply()
        changed = {name: w.clone() for name, w in self.weights.changed().items()}
        names = sorted(self.sums.keys() | changed.keys())
        self.weights.restore(model)
        parameters = self.weights.parameters()
        for name, k in self._inputs(model, tok, request, names).items():
            lies = isinstance(self._owner(name), Conv1D)
            unedited = parameters[name].detach()
            last, new = (_straight(w, lies) for w in (so_far.get(name, unedited), changed.get(name, unedited)))
            p = self.sums.get(name)
            p = (self.strength * torch.eye(len(k)).to(k) if p is None else p.to(k)) + k @ k.T
            step = torch.linalg.solve(p, ((new - last).to(k) @ k @ k.T).T).T
            self.sums[name] = p
            parameters[name].copy_(_straight(last + step.to(last), lies))

    def _owner(self, name: str) -> Any:
        return self.weights.modules[name.rpartition(".")[0]]

    def _inputs(self, model: Any, tok: Any, request: EditRequest, names: list[str]) -> dict[str, Tensor]:
        """K_t [M, N] of each matrix, float32, from the model as it is."""
        found: dict[str, Tensor] = {}
        hooks = []
        for name in names:
            module, leaf = self._owner(name), name.rpartition(".")[2]
            if leaf != "weight" or not isinstance(module, torch.nn.Linear | Conv1D):
                raise EasyEditError(f"SimIE corrects weights of linear layers; the editor also changed {name}.")

            def keep(x: Tensor, _: Tensor, name: str = name) -> None:
                found[name] = x.detach().flatten(0, -2).float().T

            hooks.append((module, keep))
        (text,) = encode(tok, [request])  # without what the tokeniser puts behind every text: no editor writes there
        with output_hooks(hooks):
            model(input_ids=text.ids[None].to(model.device))
        return found

    def tensors(self) -> dict[str, Tensor]:
        """To go on from elsewhere, together with the model's weights."""
        return dict(self.sums)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from `tensors`."""
        self.sums = dict(tensors)


def _straight(weight: Tensor, lies: bool) -> Tensor:
    """[outputs, inputs], also of a weight that lies the other way; and back."""
    return weight.T if lies else weight
