"""The page in a real browser: edits and answers, two visitors, bad input, and nothing from elsewhere."""

import re
import shutil
import socket
import time
from contextlib import contextmanager
from threading import Thread
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from easyedit_packe import PaCKEHyperParams, PaCKEPlusHyperParams, WeightPatch
from easyedit_packe.model.generation import greedy

from ..browser import chromium
from ..conftest import REQUESTS, assert_same_bits, make_model, make_tokenizer, snapshot
from .test_sessions import SETTINGS

pytest.importorskip("gradio", reason="gradio is not installed")

from easyedit_packe.demo.serve import DemoError, bound, server
from easyedit_packe.demo.sessions import TOKENS, SharedModel

PROMPT, TARGET, SUBJECT = (REQUESTS[0][name] for name in ("prompt", "target_new", "subject"))
OTHER = REQUESTS[1]["prompt"], "violin", REQUESTS[1]["subject"]


@contextmanager
def served(shared):
    """(address, sessions) of a model's page."""
    place = bound(0)
    serving = server(shared)
    thread = Thread(target=serving.run, kwargs={"sockets": [place]})
    thread.start()
    try:
        while not serving.started:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{place.getsockname()[1]}", serving.config.app.state.sessions
    finally:
        serving.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def shared():
    settings = {"PaCKE": PaCKEHyperParams(num_critical_paths=12, lr=3e-2, num_steps=20, device="cpu")}
    shared = SharedModel(make_model("llama"), make_tokenizer(), {**SETTINGS, **settings}, "tiny")
    before = snapshot(shared.model)
    yield shared
    assert_same_bits(shared.model, before)


@pytest.fixture(scope="module")
def tiny(shared):
    with served(shared) as found:
        yield found


@pytest.fixture
def visit(browser, tiny):
    """Opens the page as another visitor, and keeps what it asks for and complains of."""
    contexts, asked, complaints = [], [], []

    def visit(address=tiny[0], **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.goto(address)
        page.locator("#answers td").first.wait_for()
        return page

    yield visit
    for context in contexts:
        context.close()
    assert {urlsplit(url).hostname for url in asked if urlsplit(url).scheme not in ("data", "blob")} == {"127.0.0.1"}
    assert complaints == []


def fill(page, prompt, target, subject):
    page.locator("#prompt textarea, #prompt input").fill(prompt)
    page.locator("#target textarea, #target input").fill(target)
    page.locator("#subject textarea, #subject input").fill(subject)


def edit(page, *fact):
    """Fill the form, press the button, and wait for what the page says then."""
    fill(page, *fact)
    edits = page.locator(".packe-edit").count()
    page.click("#make")
    page.wait_for_function(f"document.querySelectorAll('.packe-edit').length == {edits + 1}")
    return page.locator(".packe-done").inner_text()


def now(page, prompt):
    """The newest answer that stands beside a prompt."""
    row = page.locator("#answers tr", has_text=f"{prompt}\u00a0…").first
    return row.locator("td").last.inner_text()


def test_a_fact_is_edited_asked_and_taken_back(visit, shared):
    page = visit()
    was = greedy(shared.model, shared.tok, PROMPT, TOKENS)
    assert not was.startswith(TARGET)
    said = edit(page, PROMPT, TARGET, SUBJECT)
    assert re.search(r"PaCKE, \d+\.\d s, 0\.\d MB, \d+\.\d% of the weights", said)
    assert now(page, PROMPT).startswith(TARGET)
    assert "1 of 1 says the new answer" in page.locator("#answers").inner_text()
    row = page.locator("#answers tr", has_text=f"{PROMPT}\u00a0…")
    assert row.locator("td").nth(1).inner_text() == was
    page.click("text=Take back")
    page.locator("text=None yet").wait_for()
    assert now(page, PROMPT) == was


def test_the_path_is_shown_before_the_edit(visit):
    page = visit()
    fill(page, PROMPT, TARGET, SUBJECT)
    page.click("#look")
    page.locator("#path img").wait_for()
    # 12 of T+ and one of T- in each of 3 layers' key and value matrix
    assert "PaCKE would change 78 key and value vectors" in page.locator("#told").inner_text()
    page.click("#make")
    page.locator(".packe-edit").wait_for()
    assert not page.locator("#path").is_visible()


def test_edits_are_stacked_and_any_can_go(visit):
    page = visit()
    edit(page, PROMPT, TARGET, SUBJECT)
    edit(page, *OTHER)
    assert re.search(r"Your other edits \d of 1 hold", page.locator("#answers").inner_text())
    page.locator("text=Take back").first.click()
    page.wait_for_function("document.querySelectorAll('.packe-edit').length == 1")
    assert page.locator(".packe-edit").inner_text().startswith(OTHER[0])
    edit(page, PROMPT, TARGET, SUBJECT)
    page.click("#reset")
    page.locator("text=None yet").wait_for()


def test_two_visitors_do_not_see_each_others_edits(visit, tiny, shared):
    one, two = visit(), visit()
    edit(one, PROMPT, TARGET, SUBJECT)
    edit(two, *OTHER)
    assert now(one, PROMPT).startswith(TARGET)
    assert two.locator(".packe-edit").count() == 1
    fill(two, PROMPT, TARGET, SUBJECT)
    two.click("text=What else to ask")
    two.click("#ask")
    two.locator("#answers tr", has_text=f"{PROMPT}\u00a0…").wait_for()
    assert now(two, PROMPT) != now(one, PROMPT)
    sessions = tiny[1]
    assert sorted(len(s.edits) for s in sessions.values())[-2:] == [1, 1]
    known = len(sessions)
    two.context.close()
    deadline = time.monotonic() + 20
    while len(sessions) == known and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(sessions) < known  # what they had is gone with them


def test_what_is_wrong_is_said_and_nothing_is_lost(visit):
    page = visit()
    edit(page, PROMPT, TARGET, SUBJECT)
    answers = page.locator("#answers").inner_text()
    for fact, message in (
        ((PROMPT, "", SUBJECT), "expected a request with a non-empty text in 'target_new'"),
        ((PROMPT, "violin", "Omar"), "expected the subject 'Omar' in the prompt"),
        (("Omar " * 80, "violin", ""), "expected at most 64 tokens"),
    ):
        fill(page, *fact)
        page.click("#make")
        page.locator(".packe-notice", has_text=message).wait_for()
        assert page.locator("#answers").inner_text() == answers
        assert page.locator(".packe-edit").count() == 1
        assert page.locator("#target textarea, #target input").input_value() == fact[1]
    edit(page, *OTHER)
    assert page.locator(".packe-notice").count() == 0


def test_the_subject_is_guessed_and_examples_fill_the_form(visit):
    page = visit()
    fill(page, "The capital of France is", "Lyon", "")
    page.locator("#target textarea, #target input").focus()
    page.wait_for_function("document.querySelector('#subject textarea, #subject input').value == 'France'")
    page.get_by_label("Start from an example").click()
    page.get_by_role("option", name="The Colosseum").click()
    page.wait_for_function("document.querySelector('#subject textarea, #subject input').value == 'The Colosseum'")
    page.locator("#answers tr", has_text="The Pantheon").wait_for()


@pytest.mark.parametrize("link", ["Download as a patch", "Download as a LoRA adapter"])
def test_what_is_downloaded_is_the_visitors_own(visit, shared, tmp_path, link):
    page = visit()
    edit(page, PROMPT, TARGET, SUBJECT)
    with page.expect_download() as download:
        page.click(f"text={link}")
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    model = make_model("llama")
    if link.endswith("patch"):
        WeightPatch.load(file).apply(model)
    else:
        from peft import PeftModel

        shutil.unpack_archive(file, tmp_path / "adapter")
        model = PeftModel.from_pretrained(model, tmp_path / "adapter").merge_and_unload()
    assert greedy(model, shared.tok, PROMPT, TOKENS) == now(page, PROMPT)


def test_nobody_else_is_served_and_nothing_is_asked_of_others(tiny, shared, monkeypatch):
    import httpx

    address = tiny[0]
    assert httpx.get(f"{address}/edits/nobody/edits.safetensors").status_code == 404
    assert httpx.get(address, headers={"host": "elsewhere.example"}).status_code == 400
    assert "default-src 'self'" in httpx.get(address).headers["content-security-policy"]
    reached, connect = [], socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", lambda s, place: (reached.append(place), connect(s, place))[1])
    with served(shared) as (other, _):
        assert httpx.get(other).status_code == 200
    assert {place[0] for place in reached} == {"127.0.0.1"}


def test_a_port_that_is_taken_is_said():
    from easyedit_packe.cli.app import app

    with bound(0) as taken:
        assert taken.getsockname()[0] == "127.0.0.1"
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DemoError, match=f"port {port}: expected a free one.*--port"):
            CliRunner().invoke(app, ["demo", "--port", str(port)], catch_exceptions=False)


@pytest.mark.slow
def test_the_default_model_learns_the_first_example_from_both_editors(visit, background_kept):
    from easyedit_packe.cli.demo import editors_for
    from easyedit_packe.cli.loading import loaded

    shared = SharedModel(*loaded("smollm2-135m"), editors_for(None, "smollm2-135m"), "smollm2-135m")
    assert [type(h) for h in shared.settings.values()] == [PaCKEHyperParams, PaCKEPlusHyperParams]
    before = snapshot(shared.model)
    with served(shared) as (address, _):
        page = visit(address)
        page.set_default_timeout(300_000)
        prompt = page.locator("#prompt textarea, #prompt input").input_value()
        target = page.locator("#target textarea, #target input").input_value()
        for editor in ("PaCKE:", "PaCKE+:"):
            assert not now(page, prompt).startswith(target)
            page.get_by_label(editor).check()
            page.click("#make")
            page.locator(".packe-edit").wait_for()
            assert now(page, prompt).startswith(target)
            page.click("text=Take back")
            page.locator("text=None yet").wait_for()
    assert_same_bits(shared.model, before)
