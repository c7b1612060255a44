"""A random model of a real one's architecture, small in everything but its number of layers, with two facts to edit.

It keeps all layers, so that the numbers in an editor's hyper-parameters mean the same as in the real model.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from ..content.held_out import held_out
from ..data.demo import FILE

FACTS = 2
SMALL = {
    "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "head_dim": 8, "rotary_dim": 4,
    "max_position_embeddings": 512,
}  # fmt: skip
TOKENS = 2000
"""So many that a fact is about as long as in a real vocabulary."""
BEGINS = ("llama", "mistral", "ministral", "gemma", "gemma2", "gemma3_text", "cohere")
"""Families whose tokenisers write a token of their own before every text."""


def make_model(config: Any, folder: Path, seed: int = 0) -> None:
    """Model and tokeniser, saved as a folder that anything loads.

    Args:
        config: of the real model.
        folder: its name is the model's: editors of EasyEdit look there for the family.
    """
    import torch
    from transformers import AutoModelForCausalLM

    tok = make_tokenizer(config.model_type)
    small = _shrunk(config, len(tok))
    for role in ("bos", "eos", "pad"):
        setattr(small, f"{role}_token_id", getattr(tok, f"{role}_token_id"))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(small)
        for p in model.parameters():  # larger than at the start of a training, so that an edit has something to move
            p.data.normal_(0, 0.2) if p.ndim > 1 else p.data.add_(torch.randn_like(p) * 0.1)
    model.to(torch.float32).save_pretrained(folder)
    tok.save_pretrained(folder)


def _shrunk(config: Any, vocabulary: int) -> Any:
    small = copy.deepcopy(config)
    text = small.get_text_config(decoder=True)
    grouped = (getattr(text, "num_key_value_heads", None) or text.num_attention_heads) < text.num_attention_heads
    changes = {**SMALL, "vocab_size": vocabulary, "num_key_value_heads": 2 if grouped else SMALL["num_attention_heads"]}
    for name, value in changes.items():
        if getattr(text, name, None) is not None:
            setattr(text, name, value)
    text.dtype = None
    return small


def make_tokenizer(family: str) -> Any:
    """Byte-level pairs, learnt from the package's own texts, with the family's beginning of a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    begin, end = ("<s>", "</s>") if family in BEGINS else ("<|endoftext|>", "<|endoftext|>")
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENS,
        special_tokens=list(dict.fromkeys(["<unk>", begin, end])),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([FILE.read_text(encoding="utf-8"), *held_out().values()], trainer)
    if family in BEGINS:
        core.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", pair=f"{begin} $A {begin} $B", special_tokens=[(begin, core.token_to_id(begin))]
        )
    tok = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", bos_token=begin, eos_token=end)
    tok.pad_token = end
    return tok


def make_data(folder: Path) -> dict[str, str]:
    """The first facts of `data=demo` as the files of ZsRE and CounterFact.

    Returns:
        data set -> file.
    """
    facts = json.loads(FILE.read_text(encoding="utf-8"))[:FACTS]
    made = {"zsre": [_zsre(fact) for fact in facts], "counterfact": [_counterfact(i, f) for i, f in enumerate(facts)]}
    files = {"zsre": folder / "zsre_mend_eval.json", "counterfact": folder / "counterfact-edit.json"}
    for name, records in made.items():
        files[name].write_text(json.dumps(records), encoding="utf-8")
    return {name: str(file) for name, file in files.items()}


def _zsre(fact: dict[str, Any]) -> dict[str, Any]:
    subject, near = fact["subject"], fact["neighbours"][0]
    return {
        "subject": subject, "src": fact["prompt"].replace("{}", subject), "alt": fact["new"],
        "rephrase": fact["paraphrases"][0].replace("{}", subject), "answers": [fact["old"]],
        "loc": f"nq question: {near['prompt']}", "loc_ans": near["answer"],
        "cond": f"{fact['old']} >> {fact['new']} || {fact['prompt'].replace('{}', subject)}",
    }  # fmt: skip


def _counterfact(i: int, fact: dict[str, Any]) -> dict[str, Any]:
    subject, near = fact["subject"], fact["neighbours"][0]
    return {
        "case_id": i, "subject": subject, "prompt": fact["prompt"].replace("{}", subject), "target_new": fact["new"],
        "ground_truth": fact["old"], "rephrase_prompt": fact["paraphrases"][0].replace("{}", subject),
        "locality_prompt": near["prompt"], "locality_ground_truth": near["answer"],
    }  # fmt: skip
