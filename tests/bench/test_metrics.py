"""Metrics against numbers worked out by hand, and against a plain loop over tokens."""

import dataclasses
import math

import pytest
import torch

from easyedit_packe.bench import measure
from easyedit_packe.bench.data import Probe, Record
from easyedit_packe.bench.metrics import easyedit, free, rome, scoring, subject, text
from easyedit_packe.bench.metrics.scoring import Scored, first_token_chances, score
from easyedit_packe.model.generation import greedy, greedy_all

from ..conftest import make_model, make_tokenizer

RECORD = Record(
    3, "Omar plays", "Omar", "the piano", "violin", ("Who plays", "Omar wrote"),
    {"neighborhood": (Probe("Anna Berg plays", ("violin",)),), "other": (Probe("Grey Tides is", ("Ivo",)),)},
    {"one_hop": (Probe("The author plays", ("the violin",)), Probe("Who is", ("Omar",)))},
    (Probe("Omar is", ("Oslo",)),),
)  # fmt: skip


def scored(log_prob=0.0, hits="1", said=()):
    return Scored(log_prob, tuple(said), tuple(h == "1" for h in hits))


@pytest.mark.parametrize("tokens", [4, 12, 2048])
def test_answers_are_a_plain_loop_over_tokens(monkeypatch, tokens):
    """However many run together."""
    monkeypatch.setattr(scoring, "TOKENS", tokens)
    model, tok = make_model("llama"), make_tokenizer()
    pairs = [
        ("Omar plays", "the piano"), ("The author of Grey Tides is", "Ivo"), ("Who wrote", "Grey Tides the piano"),
        ("Anna Berg was born in", ""),
    ]  # fmt: skip
    for (prompt, target), answer in zip(pairs, score(model, tok, pairs), strict=True):
        ids, start = tok(f"{prompt} {target}".strip())["input_ids"], len(tok(prompt)["input_ids"])
        log_prob, said = 0.0, []
        for at in range(start, max(len(ids), start + 1)):
            with torch.no_grad():
                p = torch.log_softmax(model(torch.tensor([ids[:at]])).logits[0, -1], -1)
            said.append(p.argmax().item())
            log_prob += p[ids[at]].item() if at < len(ids) else 0.0
        assert answer.said == tuple(said)
        if target:
            assert answer.log_prob == pytest.approx(log_prob / (len(ids) - start), abs=1e-5)
            assert answer.accuracy == sum(a == b for a, b in zip(said, ids[start:], strict=True)) / len(said)
    prompts = [p for p, _ in pairs]
    chances = first_token_chances(model, tok, prompts)
    for prompt, row in zip(prompts, chances, strict=True):
        with torch.no_grad():
            alone = torch.log_softmax(model(torch.tensor([tok(prompt)["input_ids"]])).logits[0, -1], -1)
        torch.testing.assert_close(row, alone, rtol=1e-5, atol=1e-5)


def passes(model):
    """The texts of each pass of the model, as token ids without padding."""
    seen = []

    def note(module, args, given):
        ids, mask = given["input_ids"], given["attention_mask"]
        mask = torch.ones_like(ids) if mask is None else mask
        seen.append({tuple(row[m.bool()].tolist()) for row, m in zip(ids, mask, strict=True)})

    model.base_model.register_forward_pre_hook(note, with_kwargs=True)
    return seen


def test_a_text_is_asked_once():
    """Answers of one token need what the model says after the prompt alone: any longer text shows that, too."""
    model, tok = make_model("llama"), make_tokenizer()
    pairs = [
        ("Omar plays", "piano"), ("Omar plays", "violin"), ("Omar plays", "the piano violin"), ("Omar plays", ""),
        ("Omar plays the", "violin"), ("Who wrote", "Oslo"), ("Who wrote", "Oslo"),
    ]  # fmt: skip
    alone = [score(model, tok, [pair])[0] for pair in pairs]
    chances = first_token_chances(model, tok, ["Omar plays", "Who wrote", "Anna"])
    seen, heard = passes(model), scoring.Heard()
    for mine, other in zip(score(model, tok, pairs, heard), alone, strict=True):
        assert (mine.said, mine.hits) == (other.said, other.hits)
        assert mine.log_prob == pytest.approx(other.log_prob, abs=1e-5)
    texts = [{tuple(tok(t)["input_ids"]) for t in some} for some in (["Omar plays the piano", "Who wrote"], ["Anna"])]
    assert seen == texts[:1]
    torch.testing.assert_close(first_token_chances(model, tok, ["Omar plays", "Who wrote", "Anna"], heard), chances)
    assert seen == texts


@pytest.mark.parametrize("generation", [True, False])
def test_all_of_a_record_is_asked_in_one_pass(generation):
    model, tok = make_model("llama"), make_tokenizer()
    asked = measure.Measure(compares=True, generation=generation)
    model.generation_config.eos_token_id = list(range(model.config.vocab_size))  # nothing is said after the first word
    seen = passes(model)
    (row,) = asked.unedited(model, tok, [RECORD])
    assert len(seen) == 1
    pairs = easyedit.pairs(RECORD) + rome.pairs(RECORD, True) + [(p.prompt, p.answer) for p in RECORD.distracting]
    values, said = easyedit.family(RECORD, score(model, tok, easyedit.pairs(RECORD)))
    assert row["easyedit"] == values
    assert row["kept"]["said"]["locality"] == said
    assert len(seen[0]) < len(set(pairs)) + len(subject.questions(RECORD))


def test_texts_that_run_together_are_alike_and_few(monkeypatch):
    monkeypatch.setattr(scoring, "TOKENS", 12)
    assert list(scoring.batches([3, 9, 4, 5, 20])) == [[0, 2], [3], [1], [4]]
    assert list(scoring.batches([])) == []


def test_counterfact_compares_probabilities():
    pairs = rome.pairs(RECORD, compares=True)
    assert pairs[:2] == [("Omar plays", "the piano"), ("Omar plays", "violin")]
    assert pairs[-4:] == [
        ("Anna Berg plays", "violin"), ("Anna Berg plays", "the piano"),
        ("Grey Tides is", "Ivo"), ("Grey Tides is", "the piano"),
    ]  # fmt: skip
    chances = [-1.0, -2.0, -3.0, -2.5, -1.0, -1.5, -0.1, -4.0, -2.0, -1.0]
    found = rome.family(RECORD, [scored(p) for p in chances], compares=True)
    assert found == {"efficacy": 1.0, "generality": 0.5, "locality": 0.5}


def test_without_an_old_answer_there_is_nothing_to_compare_with():
    record = dataclasses.replace(RECORD, ground_truth="")
    assert rome.pairs(record, compares=True)[0] == ("Anna Berg plays", "violin")
    found = rome.family(record, [scored(p) for p in (-0.1, -4.0, -2.0, -1.0)], compares=True)
    assert found == {"locality": 0.5}


def test_others_are_accuracies_against_the_truth():
    assert rome.pairs(RECORD, compares=False)[0] == ("Omar plays", "the piano")
    found = rome.family(RECORD, [scored(hits=h) for h in ("10", "1000", "1100", "1", "0")], compares=False)
    assert found == {"efficacy": 0.5, "generality": 0.375, "locality": 0.5}


def test_easyedits_figures_by_hand():
    assert [p for p, _ in easyedit.pairs(RECORD)] == [
        "Omar plays", "Who plays", "Anna Berg plays", "Grey Tides is", "The author plays", "Who is",
    ]  # fmt: skip
    found = [
        scored(hits="10"),
        scored(hits="1"),
        scored(said=[5, 6]),
        scored(said=[7]),
        scored(hits="10"),
        scored(hits="1"),
    ]
    values, said = easyedit.family(RECORD, found)
    assert values == {"efficacy": 0.5, "generality": 1.0, "portability_one_hop": 0.75}
    assert said == {"neighborhood": [[5, 6]], "other": [[7]]}
    before = {"neighborhood": [[5, 0]], "other": [[7]]}
    assert easyedit.locality(said, before) == {"locality_neighborhood": 0.5, "locality_other": 1.0, "locality": 0.75}
    # the mean of answers, not of tokens
    assert easyedit.locality({"a": [[5], [1, 2]]}, {"a": [[5], [1, 3]]})["locality"] == 0.75


def test_other_questions_about_the_subject_by_hand():
    before = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.6, 0.2, 0.2]]).log()
    after = torch.tensor([[0.6, 0.2, 0.2], [0.1, 0.7, 0.2], [0.2, 0.1, 0.7]]).log()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject, "LIKELIEST", 2)
        kept = subject.before(before)
    assert [row["ids"][0] for row in kept] == [0, 2, 0]
    found = subject.family(after, kept, {1})
    assert found["kept"] == pytest.approx(1 / 3)
    assert found["drawn"] == pytest.approx(1 / 3)  # the second; the first was not moved, the third went elsewhere

    def part(p, q):
        return p * math.log(p / q)

    expected = [
        part(0.5, 0.6) + part(0.3, 0.2) + part(0.2, 0.2),
        part(0.8, 0.2) + min(part(0.1, 0.1) + part(0.1, 0.7), part(0.1, 0.7) + part(0.1, 0.1)),
        part(0.6, 0.2) + part(0.2, 0.1) + part(0.2, 0.7),
    ]
    assert found["kl"] == pytest.approx(sum(expected) / 3, abs=1e-3)
    same = subject.family(before, kept, {2})
    assert (same["kept"], same["drawn"]) == (1.0, 0.0)  # that the target was said before is no drawing
    assert same["kl"] == pytest.approx(0, abs=1e-4)


def test_questions_are_the_data_sets_own_and_the_fixed_ones():
    asked = subject.questions(RECORD)
    assert asked[0] == "Omar is"
    assert len(asked) > 5
    assert all("Omar" in q for q in asked)
    assert subject.questions(Record(1, "Who?", None, "x", "y")) == []


@pytest.mark.parametrize(
    ("said", "target", "exact", "begins"),
    [
        (" Rome.", "Rome", True, True),
        (" Rome, Italy.", "Rome", False, True),  # it goes on: what the paper counts as a failure
        (" Rome\nThe city", "Rome", True, True),
        (" The Hague. It is", "Hague", True, True),  # articles and case do not count
        (" St. Louis. In", "St. Louis", True, True),  # a full stop inside the target is none
        (" the St. Louis. In", "St. Louis", True, True),  # nor behind what does not count
        (' "J. K. Rowling". She', "J. K. Rowling", True, True),
        (" A No. 1 hit. It", "the No. 1 hit", True, True),
        (". Rome", "Rome", False, False),
        (" Romeo.", "Rome", False, False),
        ("\nRome", "Rome", True, True),
        ("", "Rome", False, False),
        ("The", "A", False, False),  # all articles: by its letters
        (" a", "A", True, True),
        (" (see", ")", False, False),
        ("", ")", False, False),
    ],
)
def test_free_speech_by_hand(said, target, exact, begins):
    found = free.family(Record(1, "p", "p", target, "", ("q",)), [free.until_stop(said, target), "Oslo"])
    assert (found["efficacy"], found["efficacy_begins"]) == (exact, begins)
    assert (found["generality"], found["generality_begins"]) == (0, 0)


SPOKEN = [
    " Rome", " Rome, Italy. It", " Romeo", " the Rome", " The. Rome", "\n\n a  Rome\n", " 'Rome'", " Rome a",
    " Rome a the.", " Rome the city.", " rome-", " in Rome", " the then", " St. Louis", " St. Louis, Missouri.",
    " St. Paul", " the St. Louis. It", ' "St. Louis".', " Louis", " An apple a day", " A n", " R\u00f4me", " (", "",
]  # fmt: skip


@pytest.mark.parametrize("target", ["Rome", "St. Louis", "the Rome", "An apple", "Louis", "A", "("])
def test_nothing_changes_after_an_answer_is_settled(target):
    """Cut at any letter, every answer is settled at the earliest where its figures are those of the whole one."""
    record, settled = Record(1, "p", "p", target, ""), 0
    for said in SPOKEN:
        at = next((k for k in range(len(said) + 1) if free.stopped(said[:k], target)), len(said))
        whole = free.family(record, [free.until_stop(said[:at], target)])
        for k in range(at + 1):
            if free.stopped(said[:k], target) or not free.open_to(said[:k], target):
                settled += k < at
                assert free.family(record, [free.until_stop(said[:k], target)]) == whole, said[:k]
    assert settled > 20
    assert free.open_to(" R\ufffd", "R\u00f4me")  # half of a letter


@pytest.mark.parametrize("whole", [True, False])
def test_answers_come_in_order_whatever_runs_together(whole):
    """And unless they have to be whole, no longer than their figures need."""
    model, tok = make_model("llama", torch.float64, seed=3), make_tokenizer()
    model.generation_config.eos_token_id = None
    records = [
        Record(1, "Omar plays", None, "the piano", "", ("Omar", "Anna Berg plays")),
        Record(2, "Anna", None, "Oslo", ""),
    ]
    longest = [greedy_all(model, tok, [r.prompt, *r.rephrases], 50, [".", "\n"]) for r in records]
    said = free.answers(model, tok, records, whole=whole)
    for record, short, long in zip(records, said, longest, strict=True):
        assert all(b.startswith(a) for a, b in zip(short, long, strict=True))
        assert free.family(record, short) == free.family(record, long)
    assert (said == longest) == whole


def test_greedy_stops_and_leaves_the_padding_side():
    model, tok = make_model("llama"), make_tokenizer("right")
    prompts = ["Omar plays", "The author of Grey Tides is"]
    together = [" ".join(s.split()) for s in greedy_all(model, tok, prompts, 6)]
    assert together == [greedy(model, tok, p, 6) for p in prompts]
    assert tok.padding_side == "right"
    stop = together[0].split()[1]
    stopped = greedy_all(model, tok, prompts[:1], 6, [stop])[0].split()
    assert stopped == together[0].split()[: together[0].split().index(stop) + 1]


def test_greedy_is_greedy_whatever_the_models_own_settings():
    """REVIEW 15: a repetition penalty, or a word that the model shall not say, changed what counts as said."""
    model, tok = make_model("llama"), make_tokenizer()
    plain = greedy(model, tok, "Omar plays", 6)
    model.generation_config.repetition_penalty = 100.0
    model.generation_config.suppress_tokens = tok(plain)["input_ids"]
    own = model.generation_config
    assert greedy(model, tok, "Omar plays", 6) == plain
    assert model.generation_config is own


def test_perplexity_is_the_exponential_of_the_mean_loss():
    model, tok = make_model("llama"), make_tokenizer()
    ids = tok("Anna Berg was born in Bergen")["input_ids"]
    with torch.no_grad():
        p = torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)
    mean = -sum(p[i, ids[i + 1]].item() for i in range(5)) / 5
    assert text.perplexity(model, tok, "Anna Berg was born in Bergen") == pytest.approx(math.exp(mean), rel=1e-5)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    assert text.perplexity(model, tok, "Anna Berg was born in Bergen") is None


def test_the_first_words_keep_their_spaces():
    assert text._first_words("one  two\nthree four", 3) == "one  two\nthree"


@pytest.mark.parametrize("together", [1, 3])
def test_rows_do_not_depend_on_what_runs_together(monkeypatch, together):
    monkeypatch.setattr(measure, "TOGETHER", together)
    model, tok = make_model("llama"), make_tokenizer()
    records = [RECORD, Record(4, "Who wrote Grey Tides", None, "Ivo Marsh", "Omar", ("Grey Tides is",)), RECORD]
    asked = measure.Measure(compares=True, generation=True)
    rows = list(asked.unedited(model, tok, records))
    alone = [next(asked.unedited(model, tok, [r])) for r in records]
    for row, other in zip(rows, alone, strict=True):
        assert row["easyedit"] == other["easyedit"]
        assert row["rome"] == other["rome"]
        assert row["kept"]["said"] == other["kept"]["said"]
    assert rows[1]["kept"]["subject"] == []
    before = {r.case_id: row for r, row in zip(records, rows, strict=True)}
    after = list(asked.edited(model, tok, records[:2], before))
    assert after[0]["easyedit"]["locality"] == after[0]["distracting"]["locality"] == after[0]["subject"]["kept"] == 1.0
    assert after[0]["subject"]["kl"] == pytest.approx(0, abs=1e-4)
    assert "subject" not in after[1]
