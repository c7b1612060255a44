"""A tiny random model of every family of language models that is tested, each with what is special about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import transformers

from .conftest import WORDS

_TEXT = {"vocab_size": len(WORDS) + 2, "pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 1}
_COMMON = {
    **_TEXT, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 64,
}  # fmt: skip
_GROUPED = {**_COMMON, "num_key_value_heads": 1}
_HEADS = {**_GROUPED, "head_dim": 8}
_GPT = {**_TEXT, "n_embd": 16, "n_head": 2, "n_inner": 24, "n_positions": 64, "n_layer": 2}
_VISION = {
    "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 1, "image_size": 8,
    "patch_size": 4,
}  # fmt: skip
_QWEN_VISION = {
    "vision_config": {
        "depth": 2, "hidden_size": 8, "out_hidden_size": 16, "num_heads": 1, "intermediate_size": 12, "patch_size": 4,
    },
    "image_token_id": 5, "video_token_id": 6, "vision_start_token_id": 7,
}  # fmt: skip
_QWEN_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}}
_LINEAR = {
    "layer_types": ["linear_attention", "full_attention"], "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    "linear_num_key_heads": 1, "linear_num_value_heads": 2, "linear_conv_kernel_dim": 2,
}  # fmt: skip

_ROUTED = {
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "first_k_dense_replace": 0,
    "n_group": 1, "topk_group": 1,
}  # fmt: skip
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
_LATENT = {
    "num_key_value_heads": 2, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4,
    "v_head_dim": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """A family as its classes in transformers, and a tiny model's configuration.

    Attributes:
        form: that of its blocks, in `FORMS`.
        model: name of the class; the configuration's is that of its `config_class`.
        options: of the configuration.
        text: where images go in as well, the options of the part that writes text.
        widths: M of each layer.
    """

    form: str
    model: str
    options: dict[str, Any] = field(default_factory=lambda: dict(_GROUPED))
    text: dict[str, Any] | None = None
    widths: tuple[int, ...] = (24, 24)

    def config(self) -> Any:
        cls = getattr(transformers, self.model).config_class
        return cls(**self.options) if self.text is None else cls(text_config=self.text, **self.options)


def _sliding(**more: Any) -> dict[str, Any]:
    """With a window that is shorter than the longest text, and as long as the most padding."""
    layers = ["sliding_attention", "full_attention"]
    return {**_HEADS, "layer_types": layers, "sliding_window": 7, **more}


_GEMMA4 = {
    **_HEADS, "layer_types": ["full_attention", "full_attention"], "num_kv_shared_layers": 1,
    "use_double_wide_mlp": True, "final_logit_softcapping": 2.0, "hidden_size_per_layer_input": 4,
    "vocab_size_per_layer_input": _COMMON["vocab_size"], "global_head_dim": 8,
}  # fmt: skip

# fmt: off
FAMILIES: dict[str, Family] = {
    "llama": Family("gated", "LlamaForCausalLM"),
    "mistral": Family("gated", "MistralForCausalLM", {**_GROUPED, "sliding_window": 7}),
    "ministral": Family("gated", "MinistralForCausalLM", _sliding()),
    "ministral3": Family("gated", "Ministral3ForCausalLM", _HEADS),
    "qwen2": Family("gated", "Qwen2ForCausalLM"),
    "qwen3": Family("gated", "Qwen3ForCausalLM", _HEADS),
    "qwen3_5_text": Family("gated", "Qwen3_5ForCausalLM", {**_HEADS, **_LINEAR}),
    "gemma": Family("gated", "GemmaForCausalLM", _HEADS),
    "gemma2": Family("gated", "Gemma2ForCausalLM", _sliding(
        query_pre_attn_scalar=8, final_logit_softcapping=2.0, attn_logit_softcapping=3.0,
    )),
    "gemma3_text": Family("gated", "Gemma3ForCausalLM", _sliding(query_pre_attn_scalar=8)),
    "gemma3n_text": Family("gated", "Gemma3nForCausalLM", _sliding(
        intermediate_size=[24, 32], activation_sparsity_pattern=[0.5, 0.0], final_logit_softcapping=2.0,
        vocab_size_per_layer_input=_COMMON["vocab_size"], hidden_size_per_layer_input=4, laurel_rank=4,
        num_kv_shared_layers=0,
    ), widths=(24, 32)),
    "gemma4_text": Family("gated", "Gemma4ForCausalLM", _GEMMA4, widths=(24, 48)),
    "vaultgemma": Family("gated", "VaultGemmaForCausalLM", _sliding(
        query_pre_attn_scalar=8, final_logit_softcapping=2.0,
    )),
    "olmo": Family("gated", "OlmoForCausalLM"),
    "olmo2": Family("gated", "Olmo2ForCausalLM"),
    "olmo3": Family("gated", "Olmo3ForCausalLM", _sliding()),
    "granite": Family("gated", "GraniteForCausalLM", {
        **_GROUPED, "logits_scaling": 2.0, "mlp_bias": True, "embedding_multiplier": 3.0, "residual_multiplier": 0.5,
        "attention_multiplier": 0.3,
    }),
    "cohere": Family("gated", "CohereForCausalLM", {**_GROUPED, "logit_scale": 0.5}),
    "cohere2": Family("gated", "Cohere2ForCausalLM", _sliding(logit_scale=0.5)),
    "exaone4": Family("gated", "Exaone4ForCausalLM", _sliding()),
    "seed_oss": Family("gated", "SeedOssForCausalLM", {**_HEADS, "mlp_bias": True}),
    "ernie4_5": Family("gated", "Ernie4_5ForCausalLM", {**_HEADS, "use_bias": True}),
    "smollm3": Family("gated", "SmolLM3ForCausalLM"),
    "helium": Family("gated", "HeliumForCausalLM", _HEADS),
    "stablelm": Family("gated", "StableLmForCausalLM"),
    "hunyuan_v1_dense": Family("gated", "HunYuanDenseV1ForCausalLM", _HEADS),
    "cwm": Family("gated", "CwmForCausalLM", _sliding(
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}
    )),
    "olmo_hybrid": Family("gated", "OlmoHybridForCausalLM"),
    "diffllama": Family("gated", "DiffLlamaForCausalLM", {**_COMMON, "num_key_value_heads": 2}),
    "falcon_h1": Family("gated", "FalconH1ForCausalLM", {
        **_HEADS, "mamba_d_ssm": 16, "mamba_n_heads": 2, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_n_groups": 1,
        "mamba_chunk_size": 8, "mlp_multipliers": [0.5, 2.0], "lm_head_multiplier": 0.5,
    }),
    "lfm2": Family("gated w1 w2 w3", "Lfm2ForCausalLM", {
        **_GROUPED, "block_auto_adjust_ff_dim": False, "layer_types": ["conv", "full_attention"],
    }),
    "phi3": Family("packed", "Phi3ForCausalLM"),
    "glm": Family("packed", "GlmForCausalLM", _HEADS),
    "glm4": Family("packed", "Glm4ForCausalLM", _HEADS),
    "nemotron": Family("plain", "NemotronForCausalLM", {**_GROUPED, "mlp_bias": True}),
    "apertus": Family("plain", "ApertusForCausalLM", {
        **_GROUPED, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }),
    "arcee": Family("plain", "ArceeForCausalLM"),
    "jais2": Family("plain", "Jais2ForCausalLM"),
    "mpt": Family("plain", "MptForCausalLM", {
        **_TEXT, "d_model": 16, "n_heads": 2, "n_layers": 2, "max_seq_len": 64,
    }, widths=(64, 64)),
    "phi": Family("plain fc1", "PhiForCausalLM"),
    "opt": Family("plain fc1", "OPTForCausalLM", {**_COMMON, "ffn_dim": 24, "word_embed_proj_dim": 8}),
    "biogpt": Family("plain fc1", "BioGptForCausalLM", _COMMON),
    "nanochat": Family("plain fc1", "NanoChatForCausalLM", {**_GROUPED, "final_logit_softcapping": 2.0}),
    "gptj": Family("plain fc_in", "GPTJForCausalLM", {**_GPT, "rotary_dim": 4}),
    "codegen": Family("plain fc_in", "CodeGenForCausalLM", {
        **_GPT, "rotary_dim": 2, "n_embd": 32, "n_head": 4, "n_ctx": 64,
    }),
    "gpt2": Family("plain c_fc", "GPT2LMHeadModel", _GPT),
    "gpt_bigcode": Family("plain c_fc", "GPTBigCodeForCausalLM", _GPT),
    "gpt_neo": Family("plain c_fc", "GPTNeoForCausalLM", {
        **_COMMON, "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]], "window_size": 4,
    }),
    "starcoder2": Family("plain c_fc", "Starcoder2ForCausalLM", {**_GROUPED, "sliding_window": 7}),
    "gpt_neox": Family("plain dense", "GPTNeoXForCausalLM", _COMMON),
    "falcon": Family("plain dense", "FalconForCausalLM", {
        **_TEXT, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_hidden_size": 24,
        "bias": True,
    }),
    "bloom": Family("plain dense", "BloomForCausalLM", {
        **_TEXT, "hidden_size": 16, "n_layer": 2, "n_head": 2,
    }, widths=(64, 64)),
    "persimmon": Family("plain dense", "PersimmonForCausalLM", _COMMON),
    "gemma3": Family("gated", "Gemma3ForConditionalGeneration", {
        "vision_config": _VISION, "mm_tokens_per_image": 4, "image_token_index": 5,
    }, _sliding(query_pre_attn_scalar=8)),
    "mistral3": Family("gated", "Mistral3ForConditionalGeneration", {
        "vision_config": {**_VISION, "model_type": "pixtral"}, "image_token_index": 5,
    }, {**_HEADS, "model_type": "ministral3"}),
    "qwen2_vl": Family("gated", "Qwen2VLForConditionalGeneration", {
        **_QWEN_VISION, "vision_config": {
            "depth": 2, "embed_dim": 8, "hidden_size": 16, "num_heads": 1, "mlp_ratio": 2, "patch_size": 4,
        },
    }, {**_GROUPED, **_QWEN_ROPE}),
    "qwen2_5_vl": Family("gated", "Qwen2_5_VLForConditionalGeneration", _QWEN_VISION, {**_GROUPED, **_QWEN_ROPE}),
    "qwen3_vl": Family("gated", "Qwen3VLForConditionalGeneration", {
        **_QWEN_VISION, "vision_config": {**_QWEN_VISION["vision_config"], "deepstack_visual_indexes": [0]},
    }, {**_HEADS, **_QWEN_ROPE}),
    "qwen3_5": Family("gated", "Qwen3_5ForConditionalGeneration", _QWEN_VISION, {**_HEADS, **_LINEAR}),
    "gemma4": Family("gated", "Gemma4ForConditionalGeneration", {
        "vision_config": {**_VISION, "head_dim": 8}, "audio_config": None, "image_token_id": 5,
    }, _GEMMA4, widths=(24, 48)),
    "glm4v": Family("packed", "Glm4vForConditionalGeneration", {
        **_QWEN_VISION, "vision_config": {**_QWEN_VISION["vision_config"], "image_size": 8}, "image_start_token_id": 7,
        "image_end_token_id": 8, "video_start_token_id": 9, "video_end_token_id": 10,
    }, {**_HEADS, **_QWEN_ROPE}),
    "internvl": Family("gated", "InternVLForConditionalGeneration", {
        "vision_config": _VISION, "image_token_id": 5,
    }, {**_GROUPED, "model_type": "qwen2"}),
    "aya_vision": Family("gated", "AyaVisionForConditionalGeneration", {
        "vision_config": {**_VISION, "model_type": "siglip_vision_model"}, "image_token_index": 5,
    }, {**_sliding(logit_scale=0.5), "model_type": "cohere2"}),
    "llava": Family("gated", "LlavaForConditionalGeneration", {
        "vision_config": {**_VISION, "model_type": "clip_vision_model"}, "image_token_index": 5,
    }, {**_GROUPED, "model_type": "llama"}),
    "mixtral": Family("experts", "MixtralForCausalLM", {**_GROUPED, "num_local_experts": 4}, widths=(96, 96)),
    "qwen2_moe": Family("experts", "Qwen2MoeForCausalLM", {
        **_GROUPED, **_EXPERTS, "shared_expert_intermediate_size": 12,
    }, widths=(32, 32)),
    "qwen3_moe": Family("experts", "Qwen3MoeForCausalLM", {**_HEADS, **_EXPERTS}, widths=(32, 32)),
    "qwen3_next": Family("experts", "Qwen3NextForCausalLM", {
        **_HEADS, **_LINEAR, **_EXPERTS, "shared_expert_intermediate_size": 12,
    }, widths=(32, 32)),
    "olmoe": Family("experts", "OlmoeForCausalLM", {
        **_COMMON, "num_experts": 4, "num_experts_per_tok": 2,
    }, widths=(96, 96)),
    "phimoe": Family("experts", "PhimoeForCausalLM", {
        **_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2, "lm_head_bias": True,
    }, widths=(96, 96)),
    "glm4_moe": Family("experts", "Glm4MoeForCausalLM", {
        **_HEADS, **_ROUTED,
    }, widths=(32, 32)),
    "deepseek_v2": Family("experts", "DeepseekV2ForCausalLM", {
        **_COMMON, **_LATENT, **_ROUTED, "topk_method": "greedy",
    }, widths=(32, 32)),
    "deepseek_v3": Family("experts", "DeepseekV3ForCausalLM", {
        **_COMMON, **_LATENT, **_ROUTED,
    }, widths=(32, 32)),
    "ernie4_5_moe": Family("experts", "Ernie4_5_MoeForCausalLM", {
        **_HEADS, "moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 8, "moe_layer_start_index": 1,
        "moe_num_shared_experts": 1, "moe_layer_interval": 1,
    }, widths=(24, 32)),
    "lfm2_moe": Family("experts", "Lfm2MoeForCausalLM", {
        **_GROUPED, **_EXPERTS, "layer_types": ["conv", "full_attention"], "num_dense_layers": 0,
    }, widths=(32, 32)),
    "jamba": Family("experts", "JambaForCausalLM", {
        **_GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "expert_layer_period": 1, "expert_layer_offset": 0,
        "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4, "mamba_d_conv": 2, "mamba_dt_rank": 4,
        "use_mamba_kernels": False,
    }, widths=(96, 96)),
    "dots1": Family("experts", "Dots1ForCausalLM", {
        **_HEADS, **_ROUTED, "n_shared_experts": 1,
    }, widths=(32, 32)),
    "hunyuan_v1_moe": Family("experts", "HunYuanMoEV1ForCausalLM", {
        **_HEADS, "num_experts": 4, "moe_topk": [2, 2],
    }, widths=(96, 96)),
    "gpt_oss": Family("experts", "GptOssForCausalLM", {
        **_sliding(), "num_local_experts": 4, "num_experts_per_tok": 2, "rope_parameters": None,
    }, widths=(96, 96)),
}
# fmt: on


def make_family(name: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> Any:
    """A random model whose weights are large enough that an edit has something to push against."""
    family = FAMILIES[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = getattr(transformers, family.model)(family.config())
        for p in model.parameters():  # also the biases, which start at zero
            p.data.normal_(0, 0.3) if p.ndim > 1 else p.data.add_(torch.randn_like(p) * 0.1)
    if family.form == "experts":
        model.set_experts_implementation("eager")  # the others have no float64
    return model.to(dtype).eval()
