"""Tiny random models of each architecture, and a tokeniser that splits on white space."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read by transformers when it is imported

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from easyedit_packe.cache import cache_dir

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"

REQUESTS = [
    {"prompt": "Anna Berg was born in", "target_new": "Bergen", "subject": "Anna Berg", "ground_truth": "Oslo"},
    {"prompt": "Omar plays", "target_new": "the piano", "subject": "Omar"},
    {"prompt": "The author of Grey Tides is", "target_new": "Ivo Marsh the piano", "subject": "Grey Tides"},
]
WORDS = sorted({w for r in REQUESTS for t in r.values() for w in t.split()} | {"Oslo", "Who", "wrote", "violin"})

CHAT = (
    "{% for m in messages %}{{ 'Omar wrote ' + m['content'] + ' <eos>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' Omar is' }}{% endif %}"
)
"""A chat template in the words of the tiny models, with a subject's name and the padding token around the prompt."""

_COMMON = {"hidden_size": 16, "num_attention_heads": 2, "max_position_embeddings": 64}
ARCHITECTURES = {
    "llama": (LlamaForCausalLM, LlamaConfig, {**_COMMON, "intermediate_size": 24, "num_key_value_heads": 1}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {**_COMMON, "intermediate_size": 24, "num_key_value_heads": 1}),
    "phi3": (
        Phi3ForCausalLM,
        Phi3Config,
        {**_COMMON, "intermediate_size": 24, "num_key_value_heads": 1, "pad_token_id": 1},
    ),
    "gptj": (
        GPTJForCausalLM,
        GPTJConfig,
        {"n_embd": 16, "n_head": 2, "n_inner": 32, "rotary_dim": 4, "n_positions": 64},
    ),
    "gpt2": (GPT2LMHeadModel, GPT2Config, {"n_embd": 16, "n_head": 2, "n_inner": 32, "n_positions": 64}),
}


@pytest.fixture(scope="session", autouse=True)
def _texts_of_tiny_models_stay_out_of_the_users_cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("easyedit_packe.model.kept.cache_dir", lambda: folder)
        yield


@pytest.fixture
def background_kept(monkeypatch):
    """For tests on the default model: what it writes takes a minute and stays the same, so it is kept for the user."""
    monkeypatch.setattr("easyedit_packe.model.kept.cache_dir", cache_dir)


def make_tokenizer(padding_side: str = "right", pad: bool = True) -> PreTrainedTokenizerFast:
    vocabulary = {w: i for i, w in enumerate(["<unk>", "<eos>", *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tok = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="<eos>")
    if pad:
        tok.pad_token = "<eos>"
    tok.padding_side = padding_side
    return tok


def make_model(architecture: str, dtype: torch.dtype = torch.float32, seed: int = 0, layers: int = 3, **changes):
    """A random model large enough in its weights that an edit has something to push against."""
    cls, config_cls, options = ARCHITECTURES[architecture]
    layer_key = "n_layer" if architecture.startswith("gpt") else "num_hidden_layers"
    config = config_cls(
        **{**options, layer_key: layers, "vocab_size": len(WORDS) + 2, "bos_token_id": 1, "eos_token_id": 1, **changes}
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = cls(config)
        for p in model.parameters():  # also the biases, which start at zero, and away from tied or dead weights
            p.data.normal_(0, 0.3) if p.ndim > 1 else p.data.add_(torch.randn_like(p) * 0.1)
    return model.to(dtype).eval()


@pytest.fixture
def tok():
    return make_tokenizer()


@pytest.fixture(params=sorted(ARCHITECTURES))
def architecture(request):
    return request.param


@pytest.fixture
def requests_list():
    return [dict(r) for r in REQUESTS]


@pytest.fixture(scope="session")
def found():
    """The EasyEdit that `locate` finds, with this package's editors."""
    import easyedit_packe

    return easyedit_packe.register()


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    """EasyEdit writes ./logs wherever it is run."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def hparams():
    from easyedit_packe import PaCKEHyperParams

    return PaCKEHyperParams(num_critical_paths=4, lr=1e-2, num_steps=6, device="cpu")


@pytest.fixture
def editor_of(found):
    """Make a `BaseEditor` around a tiny model; the tokeniser gets the padding side EasyEdit would give it."""
    import copy

    from easyeditor import BaseEditor

    from easyedit_packe import LoadedModel

    def make(hparams, architecture="llama", name="any-name-at-all"):
        hparams = copy.copy(hparams)
        hparams.model_name = LoadedModel(name, make_model(architecture), make_tokenizer("left"))
        return BaseEditor.from_hparams(hparams)

    return make


def snapshot(model) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.state_dict().items()}


def assert_same_bits(model, before: dict[str, torch.Tensor]) -> None:
    from easyedit_packe.model.bits import same_bits

    after = model.state_dict()
    assert after.keys() == before.keys()
    for name in before:
        assert same_bits(after[name], before[name]), name


needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder ../shared is not here")
