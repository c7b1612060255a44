"""Seconds, counted operations and bytes of what a call does."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch.utils.flop_counter import FlopCounterMode


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(run: Callable[[], object]) -> float:
    synchronise()
    start = time.perf_counter()
    run()
    synchronise()
    return time.perf_counter() - start


def interleaved(contestants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contestant's turns; each round gives every contestant one turn, and the first two warm up."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 2):
        for name, run in contestants.items():
            t = seconds(run)
            if turn >= 2:
                times[name].append(t)
    return times


def ratio(a: list[float], b: list[float]) -> float:
    """Median of the ratios of neighbouring turns: what slows the machine down slows both."""
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def flops(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


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


def bandwidth() -> float:
    """Bytes a second that the GPU reads, from a copy of a gigabyte (which reads and writes)."""
    a = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    b = torch.empty_like(a)
    b.copy_(a)
    return 2 * a.numel() / statistics.median(seconds(lambda: b.copy_(a)) for _ in range(10))
