"""How fast and how small an edit is, against the authors' scheme, EasyEdit's FT and the floor.

    python benchmarks/speed.py --model smollm2-135m --json benchmarks/results/speed/smollm2-135m-cpu.json
    python benchmarks/speed.py --model llama3-8b --dtype bfloat16 --json FILE      # random weights; on a GPU

The floor of a step is a bare forward pass plus, for each term of the loss, a backward pass through activations only.
All contestants edit the same request with the same number of steps. They take turns step by step, and are compared by
the median of the ratios of neighbouring steps, because machines are shared and noisy. Operations are counted as well,
and memory is what the allocator held at its peak beyond the model. The exit code is 1 where a bar of `BARS` is missed.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from contestants import REQUEST, Floor, PaCKE, bare_forward, dense_editor, easyedit_ft, our_edit
from measuring import bandwidth, flops, interleaved, peak_extra_bytes, ratio, seconds

from easyedit_packe import PaCKEHyperParams
from easyedit_packe.model.hooks import frozen
from easyedit_packe.model.load import load as load_model
from easyedit_packe.requests import Encoded, encode, read_requests

SHAPES = {
    "gpt-j-6b": ("gptj", {"n_embd": 4096, "n_layer": 28, "n_head": 16, "rotary_dim": 64, "vocab_size": 50400}),
    "llama2-7b": ("llama", {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
                            "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000}),
    "llama3-8b": ("llama", {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                            "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256}),
    "tiny-llama": ("llama", {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
                             "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 100}),
}  # fmt: skip
"""Shapes whose speed and memory need no trained weights."""

BARS = {
    "speedup_over_dense": (4.0, None),
    "step_over_floor": (None, 1.25),
    "flops_over_floor": (None, 1.10),
    "memory_over_dense": (None, 0.1),
    "peak_extra_over_model": (None, 0.1),
}
"""At least and at most, for a model of a useful size; a tiny one spends its time outside of its matrices."""


def missed(figures: dict[str, Any]) -> list[str]:
    """The bars that figures miss; one that was not measured is not missed."""
    wrong = []
    for name, (least, most) in BARS.items():
        value = figures.get(name)
        if value is not None and least is not None and not value >= least:
            wrong.append(f"{name}: {value:.3f}, which is less than {least:g}")
        if value is not None and most is not None and not value <= most:
            wrong.append(f"{name}: {value:.3f}, which is more than {most:g}")
    return wrong


def load(name: str, dtype: torch.dtype, device: str) -> tuple[Any, list[Encoded]]:
    """The model, and the request that is edited."""
    if name not in SHAPES:
        model, tok = load_model(name, dtype=dtype)
        return model.to(device).eval(), encode(tok, read_requests([REQUEST]))
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, options = SHAPES[name]
    config = AutoConfig.for_model(kind, **options)
    with torch.device(device):
        torch.set_default_dtype(dtype)
        model = AutoModelForCausalLM.from_config(config)
        torch.set_default_dtype(torch.float32)
    ids = torch.randint(0, config.vocab_size, (16,), generator=torch.Generator().manual_seed(0))
    return model.eval(), [Encoded(ids, 14)]


def measure(
    name: str, dtype: str, device: str, steps: int, retrace: int, rounds: int, with_dense: bool
) -> dict[str, Any]:
    model, requests = load(name, getattr(torch, dtype), device)
    hparams = PaCKEHyperParams(num_steps=steps, retrace_every=retrace)  # the rest are the paper's values
    model_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    result = {
        "model": name, "dtype": dtype, "device": device, "tokens": len(requests[0].ids), "steps": steps,
        "retrace_every": retrace, "rounds": rounds, "torch": torch.__version__, "threads": torch.get_num_threads(),
        "hardware": torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU",
        "model_bytes": model_bytes,
    }  # fmt: skip
    result |= steps_of(model, requests, hparams, rounds)
    if device == "cuda":  # a step reads every weight once a pass, and no machine reads faster than it copies
        result["bandwidth_floor_seconds"] = (2 + (hparams.contrast_weight > 0)) * model_bytes / bandwidth()
    result["peak_extra_over_model"] = result["peak_extra_bytes"] / model_bytes
    if with_dense:
        return result | edits_of(model, requests, hparams, max(5, rounds // 5), result["peak_extra_bytes"])
    edit = statistics.median(seconds(lambda: our_edit(model, requests, hparams)) for _ in range(3))
    return result | {"edit_seconds": edit}


def steps_of(model: Any, requests: list[Encoded], hparams: PaCKEHyperParams, rounds: int) -> dict[str, Any]:
    """A step and a tracing of ours, against the floor and a bare forward pass."""
    with frozen(model):
        packe, floor = PaCKE(model, requests, hparams), Floor(model, requests, hparams)
        packe.trace()
        times = interleaved(
            {"step": packe.step, "floor": floor.step, "trace": lambda: PaCKE(model, requests, hparams).trace(),
             "forward": lambda: bare_forward(model, floor.batch)},
            rounds,
        )  # fmt: skip
        result = {f"{name}_seconds": statistics.median(times[name]) for name in ("step", "trace", "floor", "forward")}
        return result | {
            "step_over_floor": ratio(times["step"], times["floor"]),
            "flops_over_floor": flops(packe.step) / flops(floor.step),
            "peak_extra_bytes": peak_extra_bytes(lambda: our_edit(model, requests, hparams)),
            "forward_extra_bytes": peak_extra_bytes(lambda: bare_forward(model, floor.batch)),
        }


def edits_of(
    model: Any, requests: list[Encoded], hparams: PaCKEHyperParams, rounds: int, our_bytes: int
) -> dict[str, Any]:
    """Whole edits: ours, the dense scheme, and EasyEdit's FT where an EasyEdit is found, in turns."""
    dense, ft = dense_editor(model, requests, hparams), easyedit_ft(model, hparams)
    contestants = {"packe": lambda: our_edit(model, requests, hparams), "dense": dense}
    times = interleaved(contestants | ({"ft": ft} if ft else {}), rounds)
    dense_bytes = peak_extra_bytes(dense)
    result = {
        "edit_seconds": statistics.median(times["packe"]),
        "dense_edit_seconds": statistics.median(times["dense"]),
        "speedup_over_dense": ratio(times["dense"], times["packe"]),
        "dense_extra_bytes": dense_bytes,
        "memory_over_dense": our_bytes / dense_bytes,
    }
    if ft:
        result |= {
            "ft_edit_seconds": statistics.median(times["ft"]),
            "ft_over_packe": ratio(times["ft"], times["packe"]),
        }
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="smollm2-135m", help=f"a model to load, or a shape: {', '.join(SHAPES)}")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=12, help="optimiser steps of an edit (the paper's epochs)")
    parser.add_argument("--retrace-every", type=int, default=2, help="steps between tracings (the authors' 2); 0: once")
    parser.add_argument("--rounds", type=int, default=30, help="turns of each contestant")
    parser.add_argument("--no-dense", action="store_true", help="leave the dense scheme out (it needs 4x the memory)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    result = measure(
        args.model, args.dtype, args.device, args.steps, args.retrace_every, args.rounds, not args.no_dense
    )
    text = json.dumps(result, indent=2)
    print(text)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(text + "\n")
    wrong = missed(result) if args.model != "tiny-llama" else []
    for line in wrong:
        print(f"missed: {line}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
