"""Prompts as a user's turn, by the tokeniser's own chat template: what an instruct model is really asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..errors import HyperParamsError
from ..requests import EditRequest

MARK = "packe-prompt"
"""Stands for a prompt where a template's own text is looked for."""


def in_turn(tok: Any, prompt: str) -> str:
    """The text that ends where the model's answer begins, as EasyEdit's metrics make it with `use_chat_template`.

    A beginning token that the tokeniser puts before every text is left out of the template's, so that there is one.

    Raises:
        HyperParamsError: the tokeniser has no chat template, or its template refuses a single turn of a user.
    """
    if not getattr(tok, "chat_template", None):
        raise HyperParamsError(
            "use_chat_template: expected a tokeniser with a chat template, got one without; take an instruct model, or "
            "leave use_chat_template out."
        )
    from jinja2 import TemplateError  # transformers needs it for templates only

    try:
        text: str = tok.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
        )
    except (TemplateError, ValueError) as e:
        raise HyperParamsError(f"use_chat_template: the tokeniser's chat template fails: {e}.") from e
    begins = tok("a")["input_ids"][:1] == [tok.bos_token_id]
    return text.removeprefix(tok.bos_token) if begins else text


def framed(tok: Any, request: EditRequest) -> EditRequest:
    """The request with the template's text around its prompt; one that has such a text keeps it.

    Raises:
        HyperParamsError: see `in_turn`; or the template changes more of the prompt than the white space around it.
    """
    if any(request.frame):
        return request
    text, parts = in_turn(tok, request.prompt), in_turn(tok, MARK).split(MARK)
    for prompt in (request.prompt, request.prompt.strip()):
        if len(parts) == 2 and text == parts[0] + prompt + parts[1]:
            return replace(request, prompt=prompt, frame=(parts[0], parts[1]))
    raise HyperParamsError(
        f"use_chat_template: expected a template that has the prompt once, word for word, got {text!r} for "
        f"{request.prompt!r}; give the tokeniser another template, or leave use_chat_template out."
    )
