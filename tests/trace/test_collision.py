"""A collision that is named before an edit is there after it; two facts that are far apart leave each other alone."""

import pytest

from easyedit_packe import PaCKEHyperParams, compute_patch, overlap, trace_requests
from easyedit_packe.bench.data.formats import read_records
from easyedit_packe.model.forward import answer_logits
from easyedit_packe.model.generation import token_accuracy
from easyedit_packe.model.load import load
from easyedit_packe.packe.objective import token_losses
from easyedit_packe.requests import EditRequest, collate, encode
from easyedit_packe.trace.text import several_facts

from .test_overlap import lines_of


@pytest.mark.slow
def test_what_is_named_before_is_there_after():
    model, tok = load("smollm2-135m")
    hparams = PaCKEHyperParams.from_hparams("smollm2-135m")
    by_subject = {r.subject: EditRequest(r.prompt, r.target_new, r.subject) for r in read_records("", "demo")}
    wine, chocolate, austen = (by_subject[s] for s in ("wine", "chocolate", "Pride and Prejudice"))

    found = overlap(trace_requests(model, tok, [wine, chocolate, austen], hparams))
    (named,) = [p for p in found.pairs if p.collides]
    assert (named.first, named.second) == (0, 1)
    text = "\n".join(line for part in several_facts(found, found.traces) for line in lines_of(part, 200))
    assert "1 of 3 pairs collide" in text
    assert f"{wine.prompt} → {wine.target}\n      {chocolate.prompt} → {chocolate.target}\n" in text

    def chance():
        """Log-probability of the first edit's target, and whether it is said."""
        batch = collate(encode(tok, [wine]))
        return -token_losses(answer_logits(model, batch), batch.targets).sum().item(), token_accuracy(
            model, tok, wine.prompt, wine.target
        )

    compute_patch(model, tok, [wine], hparams).apply(model)
    alone, said = chance()
    assert said == 1
    after = {}
    for other in (chocolate, austen):
        on_top = compute_patch(model, tok, [other], hparams)
        on_top.apply(model)
        after[other.subject] = chance()
        on_top.revert(model)
    assert after["chocolate"][0] < alone - 1
    assert after["chocolate"][1] < 1
    assert after["Pride and Prejudice"][0] > alone - 0.1
    assert after["Pride and Prejudice"][1] == 1
