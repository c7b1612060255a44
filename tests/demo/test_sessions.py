"""One model, several visitors: each has the answers of their own edits, and the model stays what it was."""

import copy
import shutil
from threading import Thread

import pytest
import torch
from peft import PeftModel

from easyedit_packe import EditStack, PaCKEError, PaCKEHyperParams, PaCKEPlusHyperParams, WeightPatch, compute_patch
from easyedit_packe.demo import sessions as module
from easyedit_packe.demo.comparison import compare
from easyedit_packe.demo.facts import Fact
from easyedit_packe.demo.sessions import Session, SharedModel
from easyedit_packe.model.bits import same_bits
from easyedit_packe.model.generation import greedy
from easyedit_packe.patch.watchers import watchers
from easyedit_packe.plus.state import EditMemory

from ..conftest import REQUESTS, assert_same_bits, make_model, make_tokenizer, snapshot
from ..plus.common import ALL, same_patch

SETTINGS = {
    "PaCKE": PaCKEHyperParams(num_critical_paths=4, lr=1e-2, num_steps=6, device="cpu"),
    "PaCKE+": PaCKEPlusHyperParams(
        **{**ALL, "write_at": "all", "num_steps": 20, "subject_contexts": 1, "margin": 3.0, "context_margin": 3.0},
        device="cpu",
    ),
}
PROMPTS = [r["prompt"] for r in REQUESTS]


def shared_model(architecture="llama"):
    return SharedModel(make_model(architecture), make_tokenizer(), SETTINGS, "tiny")


def fact(i):
    return REQUESTS[i]["prompt"], REQUESTS[i]["target_new"], REQUESTS[i]["subject"]


def told(session, *steps):
    """What a visitor does: (editor, fact) edits, and a number takes that edit back; asked after each."""
    for step in steps:
        if isinstance(step, int):
            session.revert(session.edits[step].number)
        else:
            session.edit(step[0], *fact(step[1]))
        yield session.held, session.answers(PROMPTS)


def test_without_a_new_answer_nothing_says_it():
    """Every answer begins with no words at all."""
    session = Session(shared_model())
    prompt, target, subject = fact(0)
    session.edit("PaCKE", prompt, target.replace(" ", "  "), subject)
    asked = Fact(prompt, "", subject, rephrases=(fact(1)[0],))
    groups = {group.title: group for group in compare(session, asked)}
    assert [groups[title].aim for title in ("The prompt", "In other words")] == ["stays", "stay"]
    assert groups["The prompt"].holding == 0
    other = compare(session, Fact(fact(1)[0], "", fact(1)[2]))
    assert [row.target for row in other[-1].rows] == [target]


@pytest.fixture
def shared():
    """A model that is looked at before and after the test."""
    shared = shared_model()
    before = snapshot(shared.model)
    yield shared
    assert_same_bits(shared.model, before)


def test_every_call_gives_the_model_back_bit_for_bit(architecture, tmp_path):
    shared = shared_model(architecture)
    base = snapshot(shared.model)
    modes = [(m.training, len(m._forward_hooks)) for m in shared.model.modules()]
    session = Session(shared)
    calls = [
        lambda: session.answers(PROMPTS),
        lambda: session.path(*fact(0)),
        lambda: session.edit("PaCKE", *fact(0)),
        lambda: session.edit("PaCKE+", *fact(1)),
        lambda: session.edit("PaCKE", *fact(2)),
        lambda: session.answers(PROMPTS),
        lambda: session.save_patch(tmp_path),
        lambda: session.save_adapter(tmp_path),
        lambda: session.revert(session.edits[1].number),
        lambda: session.reset(),
    ]
    for call in calls:
        call()
        assert_same_bits(shared.model, base)
        assert watchers(shared.model) == []
        assert [(m.training, len(m._forward_hooks)) for m in shared.model.modules()] == modes
    assert session.edits == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_gives_the_model_back_and_leaves_the_edits(shared, monkeypatch, error):
    session = Session(shared)
    session.edit("PaCKE", *fact(0))
    held, answers = session.held, session.answers(PROMPTS)

    def fails(*_):
        raise error

    base = snapshot(shared.model)
    for name in ("compute_patch", "greedy_all"):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fails)
            with pytest.raises(error):
                session.edit("PaCKE", *fact(1)) if name == "compute_patch" else session.answers(["Omar"])
        assert_same_bits(shared.model, base)
        assert watchers(shared.model) == []
    assert session.held is held
    assert session.answers(PROMPTS) == answers


def test_whatever_the_edited_weights_hold_at_the_end_is_undone(shared):
    session = Session(shared)
    session.edit("PaCKE", *fact(0))
    name, s = next(iter(session.held.slices.items()))
    with shared.lent(session) as model, torch.no_grad():
        assert same_bits(s.read(model.get_parameter(name)), s.new)
        s.write(model.get_parameter(name), torch.full_like(s.new, 7.0))
    assert same_bits(s.read(shared.model.get_parameter(name)), s.old)


def test_visitors_in_turn_have_what_each_has_alone(shared):
    """PaCKE and PaCKE+, with an edit taken back: patches to the bit, and so what PaCKE+ remembers."""
    steps = (
        [("PaCKE", 0), ("PaCKE+", 1), ("PaCKE+", 0), 0, ("PaCKE+", 2)],
        [("PaCKE+", 2), ("PaCKE+", 0), ("PaCKE", 1), 1, ("PaCKE+", 1)],
    )
    alone = [list(told(Session(shared_model()), *of)) for of in steps]
    visits = [told(Session(shared), *of) for of in steps]
    in_turn = [[next(visit) for visit in visits] for _ in steps[0]]
    for found, expected in zip(zip(*in_turn, strict=True), alone, strict=True):
        assert all(same_patch(a, b) for (a, _), (b, _) in zip(found, expected, strict=True))
        assert [answers for _, answers in found] == [answers for _, answers in expected]
    said = [[[a.now for a in answers] for _, answers in of] for of in alone]
    assert said[0] != said[1]


def test_visitors_at_once_have_what_each_has_alone(shared):
    steps = [[("PaCKE", i), ("PaCKE+", (i + 1) % 3), 0] for i in range(3)]
    alone = [list(told(Session(shared_model()), *of)) for of in steps]
    found = [[], [], []]
    threads = [Thread(target=lambda i=i: found[i].extend(told(Session(shared), *steps[i]))) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for mine, expected in zip(found, alone, strict=True):
        assert [answers for _, answers in mine] == [answers for _, answers in expected]
        assert all(same_patch(a, b) for (a, _), (b, _) in zip(mine, expected, strict=True))


def test_an_edit_in_the_middle_is_taken_back_as_a_stack_does_it(shared):
    session = Session(shared)
    edits = [session.edit("PaCKE+", *fact(i)) for i in (0, 1, 2)]
    assert [n for e in edits for n in e.patch.info.get("edits", [])] == names(shared, session)
    model = copy.deepcopy(shared.model)
    stack = EditStack(model)
    for edit in edits:
        stack.apply(edit.patch)
    session.revert(edits[1].number)
    stack.revert(edits[1].patch)
    with shared.lent(session) as lent:
        assert_same_bits(lent, snapshot(model))
    assert [e.number for e in session.edits] == [edits[0].number, edits[2].number]
    assert names(shared, session) == [*edits[0].patch.info["edits"], *edits[2].patch.info["edits"]]
    with shared.lent(Session(shared)) as lent:
        assert EditMemory.of(lent).edits == []
    touched = {(n, i) for e in session.edits for n, s in e.patch.slices.items() for i in s.index.tolist()}
    assert {(n, i) for n, s in session.held.slices.items() for i in s.index.tolist()} == touched


def names(shared, session):
    """The edits that PaCKE+ remembers of a session."""
    with shared.lent(session) as model:
        return [e.name for e in EditMemory.of(model).edits]


def test_a_patch_is_what_compute_patch_makes(shared):
    prompt, target, subject = fact(0)
    made = Session(shared).edit("PaCKE", prompt, target, subject).patch
    request = {"prompt": prompt, "target_new": target, "subject": subject}
    expected = compute_patch(make_model("llama"), make_tokenizer(), [request], SETTINGS["PaCKE"])
    assert same_patch(made, expected)
    assert made.info == {**expected.info, "base_model": "tiny"}


def test_a_path_is_what_the_next_edit_changes(shared):
    session = Session(shared)
    session.edit("PaCKE", *fact(1))
    path = session.path(*fact(0))
    made = session.edit("PaCKE", *fact(0)).patch
    for m in path.modules:
        nodes = torch.cat([path.nodes.critical[m.name], path.nodes.negative[m.name]])
        assert torch.equal(nodes.sort().values, made.slices[f"{m.name}.weight"].index.sort().values)


def test_what_is_downloaded_gives_the_answers_of_the_page(shared, tmp_path):
    session = Session(shared)
    for i in (0, 1, 2):
        session.edit("PaCKE", *fact(i))
    session.revert(session.edits[0].number)
    answers = session.answers(PROMPTS)
    assert [a.before for a in answers] == [greedy(shared.model, shared.tok, p, module.TOKENS) for p in PROMPTS]
    assert [a.now for a in answers] != [a.before for a in answers]
    model = make_model("llama")
    WeightPatch.load(session.save_patch(tmp_path)).apply(model)
    assert [greedy(model, shared.tok, p, module.TOKENS) for p in PROMPTS] == [a.now for a in answers]
    shutil.unpack_archive(session.save_adapter(tmp_path), tmp_path / "unpacked")
    adapted = PeftModel.from_pretrained(make_model("llama"), tmp_path / "unpacked").merge_and_unload()
    assert [greedy(adapted, shared.tok, p, module.TOKENS) for p in PROMPTS] == [a.now for a in answers]


def test_bad_input_is_refused_in_the_packages_words_and_nothing_is_lost(shared, tmp_path):
    session = Session(shared)
    with pytest.raises(PaCKEError, match="at least one edit to write, got none"):
        session.save_patch(tmp_path)
    edit = session.edit("PaCKE", *fact(0))
    held = session.held
    for arguments, message in (
        (("PaCKE", " ", "Bergen"), "non-empty text in 'prompt'"),
        (("PaCKE", "Omar plays", ""), "non-empty text in 'target_new'"),
        (("PaCKE", "Omar plays", "violin", "Anna"), "expected the subject 'Anna' in the prompt"),
        (("PaCKE+", "Omar " * 80, "violin"), "at most 64 tokens"),
        (("ROME", "Omar plays", "violin"), "no editor 'ROME' for this model"),
    ):
        with pytest.raises(PaCKEError, match=message):
            session.edit(*arguments)
    with pytest.raises(PaCKEError, match="tokenises to nothing"):
        session.answers([""])
    with pytest.raises(PaCKEError, match="at most 52 tokens, for the answer to have room"):
        session.answers(["Omar " * 60])
    with pytest.raises(PaCKEError, match="taken back before"):
        session.revert(0)
    assert session.held is held
    assert session.edits == [edit]
