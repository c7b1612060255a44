"""Texts in which an edit must not act, and what they change of it."""

import pytest
import torch

from easyedit_packe import PaCKEPlusHyperParams
from easyedit_packe.errors import HyperParamsError
from easyedit_packe.model.hooks import output_hooks
from easyedit_packe.plus.contexts import FRAGMENTS, ORDERS, RELATIONS, in_other_orders, of_another
from easyedit_packe.plus.contrast import contrast_moments, contrasts
from easyedit_packe.plus.names import kinds, of_a_kind
from easyedit_packe.plus.places import places
from easyedit_packe.requests import EditRequest, Encoded, collate

from ..conftest import make_model, make_tokenizer
from .common import ALL, plus

ASKED = EditRequest("The author of Grey Tides is", "Ivo Marsh", "Grey Tides")
NAMES = ["Blue Sands", "Mara Voss", "Lake Orme"]
WIDE = {**ALL, "write_at": "from_subject", "orders": 2, "contrast": 1.0, "contrast_names": 3, "contrast_relations": 2}


def test_a_prompts_words_in_other_orders():
    assert [r.prompt for r in in_other_orders(ASKED, 6)] == [
        "Grey Tides. The author of it is",
        "Question: The author of Grey Tides is Answer:",
        "Grey Tides (The author of is):",
        "I asked about Grey Tides. They said: The author of Grey Tides is",
        "Grey Tides: The author of Grey Tides is",
        "The author of is Grey Tides:",
    ]
    assert {(r.target, r.subject) for r in in_other_orders(ASKED, 6)} == {("Ivo Marsh", "Grey Tides")}
    assert in_other_orders(EditRequest("Grey Tides is by", "Ivo Marsh", "Grey Tides"), 1)[0].prompt == (
        "Grey Tides. it is by"
    )
    assert in_other_orders(ASKED, 0) == []


def test_the_same_question_about_another():
    assert of_another(ASKED, "Omar") == EditRequest("The author of Omar is", "Ivo Marsh", "Omar")


def test_other_subjects_and_other_relations():
    hp = PaCKEPlusHyperParams(**WIDE)
    texts = contrasts([ASKED], [[]], [NAMES], hp)
    assert len(texts) == 3 * 3 + 2
    assert all(t.subject in NAMES and t.subject in t.prompt and "Grey" not in t.prompt for t in texts[:9])
    assert ["author of" in t.prompt for t in texts[:9]] == [True, True, False] * 3
    assert [t.prompt for t in texts[2:9:3]] == [
        f.format(t.subject) for f, t in zip((*FRAGMENTS[:2], FRAGMENTS[0]), texts[::3], strict=False)
    ]
    asked_for = {f.format("Grey Tides") for f in FRAGMENTS[: hp.subject_contexts]}
    assert all(t.subject == "Grey Tides" and t.prompt not in asked_for for t in texts[9:])
    assert contrasts([ASKED], [[]], [NAMES], hp) == texts
    assert contrasts([EditRequest("Who plays", "the piano")], [[]], [[]], hp) == []
    assert len(
        contrasts([ASKED], [[]], [NAMES], PaCKEPlusHyperParams(**{**WIDE, "contrast_relations": 1000}))
    ) == 9 + len(RELATIONS) + len(FRAGMENTS[hp.subject_contexts :])


def test_what_states_the_same_relation_is_not_held_against_it():
    hp = PaCKEPlusHyperParams(**{**WIDE, "contrast_relations": 1000, "relations": 0})
    own = ["{} was written by", "{} belongs to"]
    left = [t for t in contrasts([ASKED], [[]], [NAMES], hp) if t.prompt not in {o.format("Grey Tides") for o in own}]
    assert sorted(t.prompt for t in contrasts([ASKED], [own], [NAMES], hp)) == sorted(t.prompt for t in left)


def test_other_subjects_are_in_all_words_in_which_the_target_is_asked_for():
    own = ["{} was written by", "{} belongs to", "{} is owned by"]
    more = contrasts([ASKED], [own], [NAMES], PaCKEPlusHyperParams(**{**WIDE, "relations": 2}))
    plain = contrasts([ASKED], [own], [NAMES], PaCKEPlusHyperParams(**{**WIDE, "relations": 0}))
    added = [t for t in more if t not in plain]
    names = [t.subject for t in plain[:9:3]]
    assert [t.prompt for t in added] == [
        f"{names[0]} was written by", f"{names[1]} belongs to", f"{names[2]} was written by"
    ]  # fmt: skip


def test_from_the_subjects_last_token_on():
    rows = [
        Encoded(torch.arange(8), 5, (2, 4)), Encoded(torch.arange(6), 5, (0, 1)), Encoded(torch.arange(5), 3),
        Encoded(torch.arange(2), 1, (0, 1)),
    ]  # fmt: skip
    expected = [[0, 0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 0, 0], [0, 1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]]
    assert places(rows, collate(rows), "from_subject").int().tolist() == expected


def test_neutral_contexts_may_ask_for_less():
    hp = PaCKEPlusHyperParams(**{**WIDE, "context_margin": -1.0})
    run = plus(make_model("llama"), make_tokenizer(), hp)
    by_row = run.margin(range(len(run.rows))).split(run.lengths)
    wanted = [1.0] * (len(run.rows) - 2) + [-1.0] * 2  # the two neutral contexts come last
    assert [m.unique().tolist() for m in by_row] == [[m] for m in wanted]


def test_moments_are_those_of_the_places_where_an_edit_would_write():
    model, tok, hp = make_model("llama"), make_tokenizer(), PaCKEPlusHyperParams(**WIDE)
    run = plus(model, tok, hp, [{"prompt": ASKED.prompt, "target_new": ASKED.target, "subject": ASKED.subject}])
    texts = contrasts([ASKED], [[]], [NAMES], hp)
    moments = contrast_moments(model, tok, run.ffn, texts, hp)
    m = run.ffn.modules[1]
    by_hand = []
    for text in texts:
        ids = tok(text.prompt, return_tensors="pt")["input_ids"]
        begin = len(tok(text.prompt[: text.prompt.rindex(text.subject)] + text.subject)["input_ids"]) - 1
        seen = []
        with torch.no_grad(), output_hooks([(m.module, lambda x, _, seen=seen: seen.append(x[0]))]):
            model(input_ids=ids)
        by_hand.append(seen[0][max(begin, 1) if ids.shape[1] > 1 else 0 :])
    x = torch.cat(by_hand).to(torch.bfloat16).float()
    assert moments.counts[m.name] == len(x)
    index = torch.arange(m.num_nodes)
    torch.testing.assert_close(moments.of_nodes(m, index), x.T @ x / len(x), rtol=1e-3, atol=1e-5)


def test_the_more_contrast_the_less_an_edit_does_there():
    """What a change of value nodes does to the contrasts' inputs, against the change's own size."""
    asked = [{"prompt": ASKED.prompt, "target_new": ASKED.target, "subject": ASKED.subject}]

    def disturbed(contrast):
        model, tok = make_model("llama"), make_tokenizer()
        hp = PaCKEPlusHyperParams(**{**WIDE, "contrast": contrast})
        run = plus(model, tok, hp, asked)
        assert bool(run.contrast) is (contrast > 0)
        patch = run.run().patch
        names = of_a_kind(model, tok, [ASKED], kinds(model, tok), hp.contrast_names)
        moments = contrast_moments(model, tok, run.ffn, contrasts([ASKED], [[]], names, hp), hp)
        shares = []
        for m in run.ffn.modules[1::2]:
            (found,) = (s for name, s in patch.slices.items() if name.startswith(m.name))
            delta = found.change
            shares.append((delta.T @ moments.of_nodes(m, found.index) @ delta).trace() / delta.square().sum())
        return sum(shares).item()

    assert disturbed(1000.0) < 0.5 * disturbed(0.0)


def test_wrong_settings():
    with pytest.raises(HyperParamsError, match="contrast: expected"):
        PaCKEPlusHyperParams(**{**WIDE, "contrast": -1.0})
    with pytest.raises(HyperParamsError, match="write_at: did you mean 'from_subject'"):
        PaCKEPlusHyperParams(**{**WIDE, "write_at": "from_subjects"})


def test_shipped_words():
    assert all(r.count("{}") == 1 for r in RELATIONS)
    assert not set(RELATIONS) & set(FRAGMENTS)
    assert len(ORDERS) == len(set(ORDERS)) == 6


def test_what_one_request_asks_of_a_subject_is_not_held_against_another():
    hp = PaCKEPlusHyperParams(**{**WIDE, "contrast_relations": 1000, "relations": 0})
    asked = [EditRequest("Omar plays the", "violin", "Omar"), EditRequest("Omar was born in", "Oslo", "Omar")]
    texts = {t.prompt for t in contrasts(asked, [["{} plays the"], ["{} was born in"]], [[], []], hp)}
    assert "Omar died in" in texts
    assert texts.isdisjoint(r.prompt for r in asked)
