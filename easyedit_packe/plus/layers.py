"""Which modules an edit may touch."""

from __future__ import annotations

from dataclasses import replace

from ..config import PaCKEPlusHyperParams
from ..errors import HyperParamsError, ModelError
from ..model.ffn import FFNMap


def in_layers(ffn: FFNMap, hparams: PaCKEPlusHyperParams) -> FFNMap:
    """The modules that the edit may touch."""
    last = max(m.layer for m in ffn.modules)
    for layer in hparams.layers or ():
        if not 0 <= layer <= last:
            raise HyperParamsError(f"layers: expected numbers from 0 to {last} for this model, got {layer}.")
    wanted = max(hparams.num_critical_paths, hparams.value_nodes or 0)
    if wanted > ffn.num_nodes:
        raise ModelError(
            f"num_critical_paths, value_nodes: expected at most the model's {ffn.num_nodes} nodes a module, "
            f"got {wanted}; lower it."
        )
    if not hparams.layers:
        return ffn
    return replace(ffn, modules=tuple(m for m in ffn.modules if m.layer in hparams.layers))
