"""What is usual for a model: texts that it writes about nothing in particular, and what its modules see there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..config import PaCKEPlusHyperParams
from ..model.bits import as_bytes, as_text, digest_of
from ..model.ffn import FFNMap
from ..model.hooks import ends_with
from ..model.kept import Kept
from ..model.progress import shown
from ..requests import EditRequest, collate, encode
from .contexts import OPENINGS, background_lines, elsewhere, sample_texts
from .moments import InputMoments
from .names import OTHERS, TELLING, TOGETHER, WHAT_IT_IS, kinds
from .outputs import output_moments

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TEXTS, TEXT_TOKENS = 256, 40
"""Size of the text that a model writes about nothing in particular, once: several times as many tokens as a value
module of a small model has inputs, so that few directions look unused by chance."""

Measure = Callable[[InputMoments], None]
"""Counts what it looks at."""


class Background:
    """Of one model; made the first time it is asked for, and shared by copies of the model. It lies in main memory.

    Attributes:
        texts: token ids [TEXTS, TEXT_TOKENS], empty until they are asked for.
        usual: moments of the modules' inputs on these texts and on lines about invented names.
        elsewhere: the same where an edit of other subjects, in other relations, would write.
        outputs: by module, what a change of its output does further on (`outputs.output_moments`).
        kinds: what the model says that other subjects are (`names.kinds`).
    """

    def __init__(self) -> None:
        self.texts = torch.zeros(0, 0, dtype=torch.long)
        self.usual = InputMoments()
        self.elsewhere = InputMoments()
        self.outputs: dict[str, Tensor] = {}
        self.kinds: dict[str, Tensor] = {}
        self._made_for: dict[str, str] = {}

    def prepare_texts(self, model: PreTrainedModel, tok: Any, seed: int, kept: Kept | None = None) -> None:
        """Let the model write its texts, the first time with this seed."""
        self._renew("texts", settings := [OPENINGS, TEXTS, TEXT_TOKENS, seed])
        if not len(self.texts):

            def make() -> dict[str, Tensor]:
                return {"texts": sample_texts(model, tok, TEXTS, TEXT_TOKENS, seed)}

            self.texts = (kept or Kept(model, tok)).get("texts", settings, make)["texts"]

    def prepare(self, model: PreTrainedModel, tok: Any, ffn: FFNMap, hparams: PaCKEPlusHyperParams) -> None:
        """Measure the modules' inputs and outputs, those that have not been with these settings."""
        names, kept = [m.name for m in ffn.modules], Kept(model, tok)
        self.prepare_texts(model, tok, hparams.seed, kept)
        lines, written = background_lines(), digest_of([("texts", self.texts)])

        def measured(kind: str, settings: list[Any], measure: Measure) -> InputMoments:
            self._renew(kind, settings)
            before: InputMoments = getattr(self, kind)
            if all(name in before.counts for name in names):
                return before

            def make() -> dict[str, Tensor]:
                made = InputMoments()
                measure(made)
                return made.tensors()

            moments = InputMoments()
            moments.load(kept.get(kind, [names, *settings], make) | before.tensors())  # as it was first seen
            return moments

        usual = partial(self._count_usual, model, tok, ffn, lines)
        self.usual = measured("usual", [lines, written], usual)
        if hparams.outputs:
            self._renew("outputs", [written])
            if not all(name in self.outputs for name in names):
                make = partial(output_moments, model, ffn, self.texts)
                self.outputs = kept.get("outputs", [names, written], make) | self.outputs
        if hparams.contrast:
            self._renew("kinds", asked := [OTHERS, WHAT_IT_IS, TELLING])
            self.kinds = self.kinds or kept.get("kinds", asked, partial(kinds, model, tok))
        if hparams.elsewhere:
            about, at = elsewhere(hparams.orders), hparams.write_at
            desc = "lines about invented names, once"
            self.elsewhere = measured(
                "elsewhere", [[r.prompt for r in about], at],
                lambda found: found.count(model, tok, ffn, about, at, TOGETHER, desc),
            )  # fmt: skip

    def _renew(self, kind: str, settings: Sequence[Any]) -> None:
        """Drop what there is of a kind if it was made with other settings; what is made next is made with these."""
        now = json.dumps(settings)
        if self._made_for.get(kind, now) != now:
            setattr(self, kind, getattr(Background(), kind))
        self._made_for[kind] = now

    def _count_usual(
        self, model: PreTrainedModel, tok: Any, ffn: FFNMap, lines: Sequence[str], moments: InputMoments
    ) -> None:
        device = model.get_input_embeddings().weight.device
        names = collate(encode(tok, [EditRequest(line, "it") for line in lines]), device)
        pieces = [(ids.to(device), None) for ids in self.texts.split(TOGETHER)]
        for ids, mask in shown([*pieces, (names.ids, names.mask)], "usual inputs, once"):
            with torch.no_grad(), moments.watching(ffn.modules, mask), ends_with(ffn.modules[-1].module):
                model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)

    def tensors(self) -> dict[str, Tensor]:
        """Everything, by name."""
        found = {"texts": self.texts} | {f"background|{k}": t for k, t in self.usual.tensors().items()}
        found |= {f"elsewhere|{k}": t for k, t in self.elsewhere.tensors().items()}
        found |= {f"made_for|{kind}": as_bytes(settings) for kind, settings in self._made_for.items()}
        for kind, tensors in (("outputs", self.outputs), ("kinds", self.kinds)):
            found |= {f"{kind}|{k}": t for k, t in tensors.items()}
        return found

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> Background:
        """What `tensors` gave."""
        background = cls()
        background.texts = tensors["texts"]

        def own(kind: str) -> dict[str, Tensor]:
            start = f"{kind}|"
            return {k.removeprefix(start): t for k, t in tensors.items() if k.startswith(start)}

        background.usual.load(own("background"))
        background.elsewhere.load(own("elsewhere"))
        background.outputs, background.kinds = own("outputs"), own("kinds")
        background._made_for = {kind: as_text(t) for kind, t in own("made_for").items()}
        return background
