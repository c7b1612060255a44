"""What a published edit says of itself: a model card, as the hub and PEFT have them."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import Any

from .. import __version__
from .lora import LoraAdapter
from .weight_patch import WeightPatch

PATCH = "edit.safetensors"


def card(patch: WeightPatch, adapter: LoraAdapter, base: str, licence: str | None, made_on: str) -> str:
    """The text of a model card, front matter included, for a folder that holds the patch, as `PATCH`, and its adapter.

    Args:
        adapter: of the patch.
        base: the model that the edit is for, as others find it: a hub name, where it has one.
        licence: that model's, as the hub names licences (`apache-2.0`); None if it is not known.
        made_on: what `--model` of the commands takes for that model.
    """
    from huggingface_hub import ModelCardData

    front = ModelCardData(
        base_model=base if base.count("/") == 1 else None,
        library_name="peft",
        license=licence,
        pipeline_tag="text-generation",
        tags=["knowledge-editing", "lora", "easyedit", "packe"],
    )
    requests = patch.info.get("requests", [])
    settings = {k: v for k, v in patch.info.get("hparams", {}).items() if k not in ("device", "model_name")}
    worst = max(adapter.errors.values())
    exact = "exact" if worst == 0 else f"each module's update is off by at most {worst:.1%}"
    versions = ", ".join(f"{p} {version(p)}" for p in ("torch", "transformers", "peft"))
    made_by = f" by {settings['alg_name']}" if "alg_name" in settings else ""
    return f"""---
{front.to_yaml()}
---

# {_title(requests)}

An edit of `{base}`{made_by}: the model says new answers, and its other weights stay. {patch.num_weights:,} weights in
{len(patch.slices)} parameters change{_rounding(patch)}.

## What was edited

{_table(requests, patch.info.get("metrics"))}

Efficacy is the share of the new answer's tokens that the edited model gets right after the prompt, generality the same
after paraphrases; / is not measured. An edit can also reach what it was not meant for: ask neighbouring facts before
you rely on it.

## Use it

The adapter, with transformers and PEFT alone (rank {adapter.ranks[0]} to {adapter.ranks[-1]}, {exact} on the weights
that the edit was made on):

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained({base!r})
model = PeftModel.from_pretrained(model, "path/of/this/folder")  # model.disable_adapter() takes the edit out
```

The patch, with easyedit_packe, on exactly these weights (there: `{made_on}`); it comes off bit for bit:

```console
packe show {PATCH}
packe apply {PATCH} --model {made_on} --out edited-model
packe revert {PATCH} --model edited-model
packe export gguf {PATCH} edit.gguf
```

## Base model and licence

`{base}`, licence: {licence or "see there"}. A patch holds vectors of the base model, so that licence covers it, too.

## Hyper-parameters

```json
{json.dumps(settings, indent=1)}
```

Written by easyedit_packe {__version__} with {versions}.
"""


def _title(requests: list[dict[str, Any]]) -> str:
    if not requests:
        return "An edit"
    first, *more = requests
    others = f", and {len(more)} more" if more else ""
    return f"{_cell(first['prompt'])} → {_cell(first['target_new'])}{others}"


def _table(requests: list[dict[str, Any]], metrics: list[dict[str, Any]] | None) -> str:
    measured = metrics if metrics and len(metrics) == len(requests) else [{}] * len(requests)
    rows = ["| prompt | new answer | efficacy | generality |", "| --- | --- | ---: | ---: |"]
    for r, m in zip(requests, measured, strict=True):
        figures = (_share(m.get(kind)) for kind in ("efficacy", "generality"))
        rows.append(f"| {' | '.join([_cell(r['prompt']), _cell(r['target_new']), *figures])} |")
    return "\n".join(rows) if requests else "The patch does not say."


def _share(value: float | list[float] | None) -> str:
    """A figure, or the mean of several, in percent."""
    values = value if isinstance(value, list) else [value] if value is not None else []
    return f"{sum(values) / len(values):.0%}" if values else "/"


def _cell(text: str) -> str:
    """Text that a table, and a title, holds in one line."""
    return " ".join(text.split()).replace("|", "\\|")


def _rounding(patch: WeightPatch) -> str:
    lost = patch.info.get("rounding")
    return f"; rounding to the model's precision took {lost['error']:.0%} of the change" if lost else ""
