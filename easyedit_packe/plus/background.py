"""What is usual for a model: texts that it writes about nothing in particular, and what its modules see there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..config import PaCKEPlusHyperParams
from ..model.ffn import FFNMap
from ..model.hooks import ends_with
from ..requests import EditRequest, collate, encode
from .contexts import background_lines, elsewhere, kept_texts
from .moments import InputMoments

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TEXTS, TEXT_TOKENS = 256, 40
"""Size of the text that a model writes about nothing in particular, once: several times as many tokens as a value
module of a small model has inputs, so that few directions look unused by chance."""

TOGETHER = 64
"""Short lines about invented names in one forward pass."""


class Background:
    """Of one model; made the first time it is asked for, and shared by copies of the model.

    Attributes:
        texts: token ids [TEXTS, TEXT_TOKENS], empty until they are asked for.
        moments: of the modules' inputs on these texts and on lines about invented names.
        elsewhere: the same where an edit of other subjects, in other relations, would write.
    """

    def __init__(self) -> None:
        self.texts = torch.zeros(0, 0, dtype=torch.long)
        self.moments = InputMoments()
        self.elsewhere = InputMoments()

    def prepare_texts(self, model: PreTrainedModel, tok: Any, seed: int) -> None:
        """Let the model write its texts, the first time."""
        if not len(self.texts):
            self.texts = kept_texts(model, tok, TEXTS, TEXT_TOKENS, seed)

    def prepare(self, model: PreTrainedModel, tok: Any, ffn: FFNMap, hparams: PaCKEPlusHyperParams) -> None:
        """Measure the modules' inputs, the first time."""
        if not all(m.name in self.moments.counts for m in ffn.modules):
            self.prepare_texts(model, tok, hparams.seed)
            self.moments = self._neutral(model, tok, ffn)
        if hparams.elsewhere and not all(m.name in self.elsewhere.counts for m in ffn.modules):
            self.elsewhere = InputMoments()
            self.elsewhere.count(model, tok, ffn, elsewhere(), hparams.write_at, TOGETHER)

    def _neutral(self, model: PreTrainedModel, tok: Any, ffn: FFNMap) -> InputMoments:
        device = model.get_input_embeddings().weight.device
        lines = collate(encode(tok, [EditRequest(line, "it") for line in background_lines()]), device)
        moments = InputMoments()
        for ids, mask in ((self.texts.to(device), None), (lines.ids, lines.mask)):
            with torch.no_grad(), moments.watching(ffn.modules, mask), ends_with(ffn.modules[-1].module):
                model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
        return moments

    def tensors(self) -> dict[str, Tensor]:
        """Everything, by name."""
        found = {"texts": self.texts} | {f"background|{k}": t for k, t in self.moments.tensors().items()}
        return found | {f"elsewhere|{k}": t for k, t in self.elsewhere.tensors().items()}

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], devices: Mapping[str, torch.device]) -> Background:
        """What `tensors` gave, each module's on its own device."""
        background = cls()
        background.texts = tensors["texts"]
        for kind, moments in (("background|", background.moments), ("elsewhere|", background.elsewhere)):
            own = {k.removeprefix(kind): t for k, t in tensors.items() if k.startswith(kind)}
            moments.load(own, devices)
        return background
