"""A LoRA adapter as the GGUF file that llama.cpp loads.

llama.cpp multiplies each module's `B A` by alpha / rank, with one alpha for the whole file and the rank of the module's
own tensors (`get_scale` in its llama-adapter.h). An edit's modules may differ in rank, and the scale of each has to be
1, so what the division would take of a module is folded into its B beforehand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ..cache import written_whole
from ..errors import PatchError, needs

ARCHITECTURES = {
    "llama": "llama", "mistral": "llama", "smollm3": "smollm3", "arcee": "arcee", "qwen2": "qwen2", "qwen3": "qwen3",
    "gemma": "gemma", "gemma2": "gemma2", "gemma3_text": "gemma3", "phi": "phi2", "phi3": "phi3", "glm4": "glm4",
    "olmo": "olmo", "olmo2": "olmo2", "olmo3": "olmo2", "granite": "granite", "cohere": "command-r",
    "cohere2": "cohere2", "exaone4": "exaone4", "seed_oss": "seed_oss", "ernie4_5": "ernie4_5", "lfm2": "lfm2",
    "nemotron": "nemotron", "stablelm": "stablelm", "starcoder2": "starcoder2", "gpt2": "gpt2", "gpt_neox": "gptneox",
    "falcon": "falcon", "bloom": "bloom", "mpt": "mpt",
}  # fmt: skip
"""transformers' `model_type` -> llama.cpp's architecture, where its converter leaves the numbers of the feed-forward
matrices as they are (its folder conversion/). Falcon H1's, for one, it multiplies."""


def write(tensors: dict[str, Tensor], config: dict[str, Any], model_type: str | None, path: str | Path) -> Path:
    """Write an adapter in PEFT's terms (see `lora.LoraAdapter`); the file appears whole or not at all.

    Tensors: float32 `blk.<layer>.ffn_<up|down|gate>.weight.lora_a` [r, in] and `.lora_b` [out, r], each module with
    its own r.

    Raises:
        PatchError: llama.cpp is not known to run such a model, or the adapter changes biases.
        MissingPackageError: gguf is not installed.
    """
    instead = "export the whole model (packe export model) and convert it with llama.cpp's convert_hf_to_gguf.py"
    if model_type not in ARCHITECTURES:
        raise PatchError(
            f"expected a model_type whose tensors' names in llama.cpp are known, got {model_type!r}; "
            f"known: {', '.join(sorted(ARCHITECTURES))}. If llama.cpp runs this model, {instead}."
        )
    if config["lora_bias"]:
        raise PatchError(
            "expected changes of weights alone, got changes of biases, which an adapter of llama.cpp cannot hold; edit "
            f"with value_bias: frozen, or {instead}."
        )
    needs("gguf", "models")
    import gguf

    arch = ARCHITECTURES[model_type]
    key = next(k for k, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    layers = [int(part) for name in tensors for part in name.split(".") if part.isdigit()]
    names = gguf.get_tensor_name_map(key, max(layers) + 1)
    alpha = config["lora_alpha"]
    path = Path(path)
    with written_whole(path) as part:
        writer = gguf.GGUFWriter(part, arch)
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
        for module in config["target_modules"]:
            name = names.get_name(module)
            if name is None:
                raise PatchError(f"{module}: no such module in llama.cpp's {arch}; {instead}.")
            a, b = (tensors[f"base_model.model.{module}.lora_{x}.weight"] for x in "AB")
            writer.add_tensor(f"{name}.weight.lora_a", a.numpy())
            writer.add_tensor(f"{name}.weight.lora_b", (b * (len(a) / alpha)).numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return path
