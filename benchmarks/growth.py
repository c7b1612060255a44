"""How the cost of a step grows: with tokens, |T+|, batch size, layers and width.

    python benchmarks/growth.py --json benchmarks/results/speed/growth-cpu.json

Operations and bytes are counted, so they do not depend on the machine; seconds are medians of a few steps on this one.
Widths and layers are those of randomly initialised Llama models.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from contestants import PaCKE
from measuring import flops, peak_extra_bytes, seconds
from transformers import LlamaConfig, LlamaForCausalLM

from easyedit_packe import PaCKEHyperParams
from easyedit_packe.model.hooks import frozen
from easyedit_packe.requests import Encoded

BASE = {"tokens": 10, "paths": 15, "batch": 1, "layers": 12, "hidden": 512}
GROWTH = {
    "tokens": [10, 20, 40, 80],
    "paths": [1, 5, 15, 50, 150],
    "batch": [1, 2, 4, 8],
    "layers": [6, 12, 24],
    "hidden": [256, 512, 1024],
}


def point(tokens: int, paths: int, batch: int, layers: int, hidden: int) -> dict[str, Any]:
    """What one step costs."""
    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=layers, num_attention_heads=hidden // 64,
        vocab_size=8192,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    requests = [Encoded(torch.randint(0, 8192, (tokens,)), tokens - 2) for _ in range(batch)]
    hparams = PaCKEHyperParams(num_critical_paths=paths, edit_batch_size=0)
    with frozen(model):
        editor = PaCKE(model, requests, hparams)
        editor.trace()
        editor.step()
        return {
            "tokens": tokens, "paths": paths, "batch": batch, "layers": layers, "hidden": hidden,
            "model_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
            "gflop": flops(editor.step) / 1e9,
            "extra_bytes": peak_extra_bytes(editor.step),
            "seconds": statistics.median(seconds(editor.step) for _ in range(5)),
        }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = [
        {"varied": name, **point(**{**BASE, name: value})} for name, values in GROWTH.items() for value in values
    ]  # fmt: skip
    for r in rows:
        print(
            f"{r['varied']:>7} {r[r['varied']]:>5}: {r['gflop']:7.2f} GFLOP, {r['extra_bytes'] / 1e6:7.1f} MB, "
            f"{r['seconds'] * 1e3:7.1f} ms"
        )
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
