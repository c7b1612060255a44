"""How fast and how small an edit is, against the authors' scheme, EasyEdit's FT and the floor.

    python benchmarks/speed.py --model smollm2-135m --json benchmarks/results/speed/smollm2-135m-cpu.json
    python benchmarks/speed.py --model llama3-8b --dtype bfloat16 --json FILE      # random weights; on a GPU

The floor of a step is a bare forward pass plus, for each term of the loss, a backward pass through activations only.
All contestants edit the same request with the same number of steps. They take turns step by step, and are compared by
the median of the ratios of neighbouring steps, because machines are shared and noisy. Operations are counted as well
(`FlopCounterMode`), and memory is what the allocator held at its peak beyond the model.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from easyedit_packe import PaCKEHyperParams
from easyedit_packe.model import fetch as models
from easyedit_packe.model.ffn import FFNMap
from easyedit_packe.model.forward import answer_logits
from easyedit_packe.model.hooks import frozen, output_hooks
from easyedit_packe.packe.objective import token_losses
from easyedit_packe.packe.rectify import Rectifier
from easyedit_packe.requests import Encoded, collate, encode, read_requests

from dense import DenseEditor  # isort: skip

REQUEST = {"prompt": "The Eiffel Tower is located in the city of", "target_new": "Rome"}
"""Ten tokens, as many as a CounterFact prompt has; `benchmarks/growth.py` measures other lengths."""

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


class Floor:
    """A bare forward pass, and a backward pass through activations for each term."""

    def __init__(self, model: torch.nn.Module, requests: list[Encoded], hparams: PaCKEHyperParams) -> None:
        self.model, self.terms = model, 1 + (hparams.contrast_weight > 0)
        self.batch = collate(requests, model.get_input_embeddings().weight.device)
        self.first = FFNMap.of(model).modules[0].module  # backward has no business below the lowest node
        with torch.no_grad():
            self.unedited = answer_logits(model, self.batch).argmax(-1)

    def step(self) -> None:
        leaf = []

        def cut(_, y):
            leaf.append(y.detach().requires_grad_())
            return leaf[0]

        with output_hooks([(self.first, cut)]):
            logits = answer_logits(self.model, self.batch)
        for i, labels in enumerate((self.batch.targets, self.unedited)[: self.terms]):
            last = i == self.terms - 1
            torch.autograd.grad(token_losses(logits, labels).mean(), leaf, retain_graph=not last)


class PaCKE:
    """Our editor, taken apart into tracing and steps."""

    def __init__(self, model: torch.nn.Module, requests: list[Encoded], hparams: PaCKEHyperParams) -> None:
        self.run = Rectifier(model, FFNMap.of(model), requests, hparams)
        self.all = list(range(len(requests)))

    def trace(self) -> None:
        self.run.start_training(self.run.trace())

    def trace_and_first_step(self) -> None:
        self.run.trace_for([self.all])
        self.run.train_on(self.all, may_stop=False)

    def step(self) -> None:
        self.run.known = None  # a step with its own passes, not the one that tracing has done
        self.run.train_on(self.all, may_stop=False)


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(run: Callable[[], object]) -> float:
    synchronise()
    start = time.perf_counter()
    run()
    synchronise()
    return time.perf_counter() - start


def peak_extra_bytes(run: Callable[[], object]) -> int:
    """Most bytes the allocator held at a time during `run`, beyond what it held before."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as p:
        run()
    held = peak = 0
    for event in sorted(p.profiler.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def flops(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def load(name: str, dtype: torch.dtype, device: str):
    if name not in SHAPES:
        model, tok = models.load(name, dtype=dtype)
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


def interleaved(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contestant's turns; each round gives every contestant one turn."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 2):
        for name, run in contestants.items():
            t = seconds(run)
            if turn >= 2:  # the first two rounds warm up
                times[name].append(t)
    return times


def bandwidth() -> float:
    """Bytes a second that the GPU reads, from a copy of a gigabyte (which reads and writes)."""
    a = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    b = torch.empty_like(a)
    b.copy_(a)
    return 2 * a.numel() / statistics.median(seconds(lambda: b.copy_(a)) for _ in range(10))


def ratio(a: list[float], b: list[float]) -> float:
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def measure(name: str, dtype: str, device: str, steps: int, retrace: int, rounds: int, with_dense: bool) -> dict:
    model, requests = load(name, getattr(torch, dtype), device)
    hparams = PaCKEHyperParams(num_steps=steps, retrace_every=retrace)  # the rest are the paper's values
    model_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    result = {
        "model": name, "dtype": dtype, "device": device, "tokens": len(requests[0].ids), "steps": steps,
        "retrace_every": retrace, "rounds": rounds, "torch": torch.__version__, "threads": torch.get_num_threads(),
        "hardware": torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU",
        "model_bytes": model_bytes,
    }  # fmt: skip

    def packe_edit() -> None:
        Rectifier(model, FFNMap.of(model), requests, hparams).run()

    with frozen(model):
        packe, floor = PaCKE(model, requests, hparams), Floor(model, requests, hparams)
        packe.trace()
        times = interleaved(
            {"step": packe.step, "floor": floor.step, "trace": lambda: PaCKE(model, requests, hparams).trace(),
             "forward": lambda: no_grad_forward(model, floor.batch)},
            rounds,
        )  # fmt: skip
        result |= {
            "step_seconds": statistics.median(times["step"]),
            "trace_seconds": statistics.median(times["trace"]),
            "floor_seconds": statistics.median(times["floor"]),
            "forward_seconds": statistics.median(times["forward"]),
            "step_over_floor": ratio(times["step"], times["floor"]),
            "flops_over_floor": flops(packe.step) / flops(floor.step),
            "peak_extra_bytes": peak_extra_bytes(packe_edit),
            "forward_extra_bytes": peak_extra_bytes(lambda: no_grad_forward(model, floor.batch)),
        }
    if device == "cuda":  # a step reads every weight once a pass, and no machine reads faster than it copies
        result["bandwidth_floor_seconds"] = (2 + (hparams.contrast_weight > 0)) * model_bytes / bandwidth()
    result["peak_extra_over_model"] = result["peak_extra_bytes"] / model_bytes
    if with_dense:
        result |= compare_edits(model, requests, hparams, packe_edit, max(5, rounds // 5))
    else:
        with frozen(model):
            result["edit_seconds"] = statistics.median(seconds(packe_edit) for _ in range(3))
    return result


@torch.no_grad()
def no_grad_forward(model: torch.nn.Module, batch) -> None:
    answer_logits(model, batch)


def compare_edits(model, requests, hparams, packe_edit, rounds: int) -> dict:
    """Whole edits: ours, the dense scheme, and EasyEdit's FT where an EasyEdit is found, in turns."""
    twin = copy.deepcopy(model)

    def dense_edit() -> None:
        DenseEditor(twin, requests, hparams).run()
        for p in twin.parameters():
            p.grad = None

    def ours() -> None:
        with frozen(model):
            packe_edit()

    contestants = {"packe": ours, "dense": dense_edit}
    ft = easyedit_ft(model, hparams)
    if ft is not None:
        contestants["ft"] = ft
    times = interleaved(contestants, rounds)
    result = {
        "edit_seconds": statistics.median(times["packe"]),
        "dense_edit_seconds": statistics.median(times["dense"]),
        "speedup_over_dense": ratio(times["dense"], times["packe"]),
        "dense_extra_bytes": peak_extra_bytes(dense_edit),
    }
    if ft is not None:
        result |= {
            "ft_edit_seconds": statistics.median(times["ft"]),
            "ft_over_packe": ratio(times["ft"], times["packe"]),
        }
    with frozen(model):
        result["memory_over_dense"] = peak_extra_bytes(packe_edit) / result["dense_extra_bytes"]
    return result


def easyedit_ft(model, hparams):
    """EasyEdit's FT on one layer with as many steps; None where there is no EasyEdit, or the model has no tokeniser."""
    from easyedit_packe.errors import EasyEditError

    if model.config.model_type != "llama" or not getattr(model.config, "_name_or_path", ""):
        return None
    try:
        import easyedit_packe
        from easyedit_packe.model.load import LoadedModel
        from easyedit_packe.registry import hparams_class

        easyedit_packe.register()
        import dataclasses

        from easyeditor import BaseEditor
    except EasyEditError:
        return None
    ft = hparams_class("FT")
    settings = {
        "layers": [21], "num_steps": hparams.num_steps, "lr": 5e-4, "weight_decay": 0, "kl_factor": 0,
        "norm_constraint": False, "objective_optimization": "target_new",
        "rewrite_module_tmp": "model.layers.{}.mlp.down_proj.weight", "layer_module_tmp": "model.layers.{}",
        "mlp_module_tmp": "model.layers.{}.mlp", "attn_module_tmp": "model.layers.{}.self_attn",
        "ln_f_module": "model.norm", "lm_head_module": "lm_head", "device": str(model.device).removeprefix("cuda:"),
        "alg_name": "FT", "model_name": "", "max_length": 40, "batch_size": 1,
    }  # fmt: skip
    known = {f.name for f in dataclasses.fields(ft)}
    from transformers import AutoTokenizer

    from easyedit_packe.bench.through_easyedit import quiet

    ft_hparams = ft(**{k: v for k, v in settings.items() if k in known})
    tok = AutoTokenizer.from_pretrained(model.config._name_or_path)
    ft_hparams.model_name = LoadedModel("llama", model, tok)
    with quiet():
        editor = BaseEditor.from_hparams(ft_hparams)
    request = {**REQUEST, "ground_truth": "Paris"}

    def edit() -> None:
        from easyedit_packe.easyedit.bridge import bridged

        only_cuda = not hasattr(__import__("easyeditor.util", fromlist=["device"]), "device")
        with quiet(), bridged(ft_hparams, only_cuda):
            _, originals = editor.apply_algo(
                model, tok, [request], ft_hparams, copy=False, return_orig_weights=True, keep_original_weight=True
            )
            with torch.no_grad():
                for name, value in originals.items():
                    model.get_parameter(name)[...] = value

    return edit


def main() -> None:
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


if __name__ == "__main__":
    main()
