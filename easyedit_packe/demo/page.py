"""The page: what stands where, and what happens when something is pressed."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import gradio as gr

from ..errors import PaCKEError
from ..trace.picture import draw_path
from . import view
from .comparison import compare
from .facts import Fact, built_in, guessed_subject
from .sessions import Session, SharedModel

EDITORS = {
    "PaCKE": "PaCKE: the paper's, takes seconds",
    "PaCKE+": "PaCKE+: leaves more of the rest alone; its first edit takes about two minutes longer",
}
FONTS = ["system-ui", "sans-serif"]  # gradio's own theme asks the network for its fonts
THEME = gr.themes.Default(font=FONTS, font_mono=["ui-monospace", "monospace"])

INTRODUCTION = """# Change one fact of a language model

This is {name}, a language model on this computer that continues any text. Give it a new answer to one question: the
editor finds the weights that carry the old one and changes them. See what the model says then, and what else has
changed. Nobody else who opens this page sees your edits; they are gone when you close it."""


def page(shared: SharedModel, sessions: dict[str, Session]) -> gr.Blocks:
    """The page of a model. `sessions` gets one of each visitor, by the key of gradio's own, until they leave."""
    examples = built_in()
    with gr.Blocks(title="PaCKE", analytics_enabled=False, fill_width=False) as blocks:
        gr.Markdown(INTRODUCTION.format(name=shared.name or "a model"))
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                example = gr.Dropdown(
                    [(fact.title, i) for i, fact in enumerate(examples)], value=0, label="Start from an example"
                )
                prompt = gr.Textbox(examples[0].prompt, label="Text that asks for the fact", elem_id="prompt")
                with gr.Row():
                    target = gr.Textbox(examples[0].target, label="New answer", elem_id="target", min_width=120)
                    subject = gr.Textbox(
                        examples[0].subject, label="What it is about", elem_id="subject", min_width=120,
                        placeholder="guessed from the text",
                    )  # fmt: skip
                editor = gr.Radio(
                    [(EDITORS.get(name, name), name) for name in shared.settings],
                    value=next(iter(shared.settings)), label="Editor", elem_id="editor",
                )  # fmt: skip
                with gr.Row():
                    look = gr.Button("See its path", elem_id="look", min_width=120)
                    make = gr.Button("Edit", variant="primary", elem_id="make", min_width=120)
                with gr.Accordion("What else to ask, one a line", open=False):
                    rephrases, neighbours, others = (
                        gr.Textbox(text, label=label, info=info, lines=3, max_lines=8)
                        for text, label, info in zip(
                            examples[0].questions,
                            ("In other words", "Neighbours", "Other facts of the subject"),
                            ("should get the new answer", "should stay", "should stay"),
                            strict=True,
                        )
                    )
                    ask = gr.Button("Ask", elem_id="ask")
            with gr.Column(scale=3, min_width=320):
                told = gr.HTML(elem_id="told")
                picture = gr.Plot(visible=False, show_label=False, elem_id="path")
                answers = gr.HTML(elem_id="answers")
                gr.Markdown("### Your edits")
                changed = gr.State(())
                rows = gr.Column()
                reset = gr.Button("Take all back", visible=False, elem_id="reset", size="sm")

        form = [prompt, target, subject, rephrases, neighbours, others]
        shown = [told, picture, answers, changed, reset]

        def session_of(request: gr.Request) -> Session:
            return sessions.setdefault(str(request.session_hash), Session(shared))

        def seen(session: Session, fact: Fact, message: str = "") -> dict[Any, Any]:
            """Everything that depends on the session's edits, after a change or a question."""
            edits = {changed: tuple(e.number for e in session.edits), reset: gr.Button(visible=bool(session.edits))}
            try:
                compared = view.answers(compare(session, fact), bool(session.edits))
            except PaCKEError as e:  # what was changed is shown all the same
                return {**edits, told: view.notice(str(e))}
            said = view.done(message) if message else ""
            return {**edits, told: said, answers: compared, picture: gr.Plot(visible=False)}

        def show(request: gr.Request, *texts: str) -> dict[Any, Any]:
            return seen(session_of(request), _fact(*texts))

        def trace(request: gr.Request, *texts: str) -> dict[Any, Any]:
            fact = _fact(*texts)
            path = session_of(request).path(fact.prompt, fact.target, fact.subject)
            return {told: view.done(view.would(path)), picture: gr.Plot(draw_path(path), visible=True)}

        def change(request: gr.Request, chosen: str, *texts: str) -> dict[Any, Any]:
            fact, session = _fact(*texts), session_of(request)
            edit = session.edit(chosen, fact.prompt, fact.target, fact.subject)
            return seen(session, fact, f"Edited: {view.cost(edit, shared.num_weights)}.")

        def take_back(request: gr.Request, number: int | None, *texts: str) -> dict[Any, Any]:
            session = session_of(request)
            if number is None:
                session.reset()
            else:
                session.revert(number)
            return seen(session, _fact(*texts), "Taken back, bit for bit.")

        def leave(request: gr.Request) -> None:
            sessions.pop(str(request.session_hash), None)

        def fill(index: int) -> list[str]:
            fact = examples[index]
            return [fact.prompt, fact.target, fact.subject, *fact.questions]

        def fit(text: str, about: str, *questions: str) -> list[Any]:
            """Subject and questions for a prompt that has changed; those of an example go with its prompt.

            What stays is left alone: by now somebody may be writing there.
            """
            of_others = any(f.questions == questions for f in examples if f.prompt != text)
            fits = about and about in text
            return [gr.skip() if fits else guessed_subject(text), *(["" if of_others else gr.skip()] * len(questions))]

        asked = _reporting(show, told)
        blocks.load(asked, form, shown)
        ask.click(asked, form, shown)
        example.input(fill, example, form).then(asked, form, shown)
        prompt.blur(fit, [prompt, *form[2:]], form[2:], show_progress="hidden")
        look.click(_reporting(trace, told), form, [told, picture], scroll_to_output=True)
        make.click(_reporting(change, told), [editor, *form], shown, scroll_to_output=True)
        reset.click(_reporting(take_back, told), [gr.State(None), *form], shown)
        blocks.unload(leave)

        with rows:

            @gr.render(inputs=changed, show_progress="hidden")
            def list_edits(numbers: tuple[int, ...], request: gr.Request) -> None:
                session = session_of(request)
                if not session.edits:
                    gr.Markdown("None yet. They stay in force, one on top of the other, until you take them back.")
                for edit in session.edits:
                    with gr.Row():
                        with gr.Column(scale=4, min_width=200):
                            gr.HTML(view.edit(edit, shared.num_weights))
                        back = gr.Button("Take back", size="sm", scale=1, min_width=100)
                        back.click(_reporting(take_back, told), [gr.State(edit.number), *form], shown)
                if session.edits:
                    gr.HTML(view.downloads(session, str(request.session_hash)), elem_id="downloads")

    return blocks


def _fact(prompt: str, target: str, subject: str, *questions: str) -> Fact:
    """The form as a fact: a question a line."""
    subject, prompt = subject.strip() or guessed_subject(prompt), prompt.strip()
    if subject:
        prompt = prompt.replace("{}", subject)
    lines = [tuple(line.strip() for line in text.splitlines() if line.strip()) for text in questions]
    return Fact(prompt, target, subject, *lines)


def _reporting(handler: Callable[..., dict[Any, Any]], told: gr.HTML) -> Callable[..., dict[Any, Any]]:
    """The same, but what a person got wrong is told on the page, and nothing else on it changes."""

    @wraps(handler)
    def reported(*arguments: Any) -> dict[Any, Any]:
        try:
            return handler(*arguments)
        except PaCKEError as e:
            return {told: view.notice(str(e))}

    return reported
