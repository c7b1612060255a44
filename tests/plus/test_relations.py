"""Which relations a prompt states, by what the model says after it."""

import torch

from easyedit_packe import PaCKEPlusHyperParams
from easyedit_packe.model.ffn import FFNMap
from easyedit_packe.model.hooks import output_hooks
from easyedit_packe.plus.contexts import RELATIONS
from easyedit_packe.plus.relations import read_relations
from easyedit_packe.requests import EditRequest

from ..conftest import make_model, make_tokenizer

ASKED = EditRequest("The author of Grey Tides is", "Ivo Marsh", "Grey Tides")


@torch.no_grad()
def likeness(model, tok, relation):
    """sum sqrt(p q) of the next token, from two forward passes, in float64."""

    def root(text):
        return model(tok(text, return_tensors="pt")["input_ids"]).logits[0, -1].double().softmax(-1).sqrt()

    return float(root(ASKED.prompt) @ root(relation.format(ASKED.subject)))


def read(model, tok, requests, hparams):
    return read_relations(model, tok, FFNMap.of(model), requests, hparams)


def test_the_likest_come_first_and_no_others():
    model, tok = make_model("llama", torch.float64), make_tokenizer()
    by_hand = {relation: likeness(model, tok, relation) for relation in RELATIONS}
    values = sorted(set(by_hand.values()), reverse=True)
    least = (values[4] + values[5]) / 2
    (found,), _ = read(model, tok, [ASKED], PaCKEPlusHyperParams(likeness=least))
    assert 0 < least < 1
    assert sorted(found) == sorted(r for r in RELATIONS if by_hand[r] > least)
    assert [by_hand[r] for r in found] == sorted((by_hand[r] for r in found), reverse=True)


def test_nothing_is_like_a_prompt_without_a_subject_or_where_nothing_is_asked():
    model, tok = make_model("llama"), make_tokenizer()
    bare = EditRequest(ASKED.prompt, ASKED.target)
    every = PaCKEPlusHyperParams(likeness=0.0)
    assert read(model, tok, [bare, ASKED], every)[0] == [[], read(model, tok, [ASKED], every)[0][0]]
    assert read(model, tok, [ASKED], PaCKEPlusHyperParams(likeness=1.0))[0] == [[]]
    assert not read(model, tok, [bare], every)[1]


def test_the_edit_must_not_act_in_all_other_relations():
    """The moments are those of the places where an edit would write, in texts that do not state the same relation."""
    model, tok = make_model("llama"), make_tokenizer()
    hp = PaCKEPlusHyperParams(likeness=sorted(likeness(model, tok, r) for r in RELATIONS)[-8])
    ffn = FFNMap.of(model)
    (same,), moments = read_relations(model, tok, ffn, [ASKED], hp)
    m, by_hand = ffn.modules[1], []
    for relation in RELATIONS:
        if relation not in same:
            text = relation.format(ASKED.subject)
            begin = len(tok(text[: text.rindex(ASKED.subject)] + ASKED.subject)["input_ids"]) - 1
            with torch.no_grad(), output_hooks([(m.module, lambda x, _, begin=begin: by_hand.append(x[0, begin:]))]):
                model(tok(text, return_tensors="pt")["input_ids"])
    x = torch.cat(by_hand).to(torch.bfloat16).float()
    assert 0 < len(same) < len(RELATIONS)
    assert moments.counts[m.name] == len(x)
    index = torch.arange(m.num_nodes)
    torch.testing.assert_close(moments.of_nodes(m, index), x.T @ x / len(x), rtol=1e-2, atol=1e-5)


def test_it_leaves_no_trace():
    model, tok = make_model("llama"), make_tokenizer()
    state = torch.get_rng_state()
    read(model, tok, [ASKED], PaCKEPlusHyperParams())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
