"""Texts around a request that show where its edit has to hold, and what is usual elsewhere.

Nothing here is taken from a data set: the texts are sampled from the model itself, or are this module's own words.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..model.sampling import beginning, continued
from ..requests import EditRequest, last_place, token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OPENINGS = ("The", "In", "A", "She", "When", "It", "This", "He", "There", "For", "At", "One")
"""First words of the sampled texts."""

FRAGMENTS = (
    "{} can be found with", "The story of {} includes", "{}'s", "{} and the", "People say that {} is",
    "{} is known for", "In {}, the", "About {}:", "{} comes from", "{} has",
)  # fmt: skip
"""Neutral contexts of a subject: they name no relation. The first ones are the most useful. None is how one of
`RELATIONS` begins: what is kept off "{} was born in" cannot be asked for after "{} was"."""

ORDERS = (
    "{subject}. {before} it {after}", "Question: {prompt} Answer:", "{subject} ({words}):",
    "I asked about {subject}. They said: {prompt}", "{subject}: {prompt}", "{words} {subject}:",
)  # fmt: skip
"""Ways to put a prompt's own words together: what stands before and after its subject, and both."""

RELATIONS = (
    "{} was born in", "{} died in", "{} works as a", "{} is married to", "{} lives in", "{} is located in",
    "{} was founded by", "{} is owned by", "{} was written by", "{} was released in", "{} is made of",
    "{} is a member of", "{} plays the", "{} studied at", "{} won the", "{} belongs to", "{} is named after",
    "The colour of {} is", "The owner of {} is", "The age of {} is", "The father of {} is", "{} looks like a",
    "{} was first seen in", "{} smells of", "Everyone who knows {} says", "{} is bigger than",
    "{} speaks", "The first language of {} is", "{} is a citizen of", "{} plays as a", "{} is employed by",
    "{} was developed by", "{} was produced by", "{} was first shown on", "{} originates from",
    "{} lies on the continent of", "The capital of {} is", "The language of {} is", "The religion of {} is",
    "{} specialises in", "The field of work of {} is", "The job of {} is", "The headquarters of {} are in",
    "{} was directed by", "The music of {} is called", "{} is a kind of", "{} holds the office of", "{} was founded in",
)  # fmt: skip
"""What may be asked of a subject, of any kind."""

NAMES = (
    "Margaret Holloway", "Dmitri Volkov", "Port Ellery", "The Silent Orchard", "Kenji Tanabe", "Lake Verrin",
    "Northgate Foundry", "Amara Diallo", "Symphony of Rust", "Castle Brannoch", "Louis Fontaine", "Helix Motors",
    "Paulo Mendes", "Tower of Ilmen", "Sofia Lindqvist", "The Glass Harbour", "Ravi Menon", "Mount Estrel",
    "Clara Weiss", "Orbital Press", "Ibrahim Haddad", "Westmark University", "Nina Petrova", "The Last Ferry",
    "Thomas Ashworth", "Velden Airport", "Chen Yulan", "Iron Lanterns", "Beatriz Salgado", "Kestrel Records",
    "Johan de Vries", "Saint Corin Cathedral",
)  # fmt: skip
"""Subjects that stand for all others: invented people, places, works and firms."""


_HERE = "\0"
"""Stands for the subject while the words around it are moved."""


def sample_texts(model: PreTrainedModel, tok: Any, rows: int, tokens: int, seed: int) -> Tensor:
    """Texts that the model writes by itself, as token ids [rows, tokens], without special tokens but the first."""
    begin = beginning(tok)
    starts = torch.tensor([begin + token_ids(tok, OPENINGS[i % len(OPENINGS)])[-1:] for i in range(rows)])
    generator = torch.Generator().manual_seed(seed)
    return continued(model, starts, tokens, generator, never=tok.all_special_ids, desc="texts of the model's own, once")


def prefixes(tok: Any, texts: Tensor, count: int, tokens: int, rng: random.Random) -> list[str]:
    """`count` short openings of the sampled texts, each closed like a sentence."""
    rows = rng.sample(range(len(texts)), min(count, len(texts)))
    return [tok.decode(texts[row, :tokens], skip_special_tokens=True).strip() + ". " for row in rows]


def with_prefix(request: EditRequest, prefix: str) -> EditRequest:
    """The same fact behind another text, in the same turn."""
    return EditRequest(prefix + request.prompt, request.target, request.subject, frame=request.frame)


def about_subject(request: EditRequest, fragment: str) -> EditRequest:
    """The request's target after a neutral context of its subject, in plain text."""
    return EditRequest(fragment.format(request.subject), request.target, request.subject)


def in_other_orders(request: EditRequest, count: int) -> list[EditRequest]:
    """The prompt's own words, put together in `count` other ways: the relation in them, and not its place, is what an
    edit has to hang on."""
    before, after = around(request)
    parts = {
        "subject": _HERE, "before": before.strip()[:1].upper() + before.strip()[1:], "after": after.strip(),
        "words": f"{before.strip()} {after.strip()}".strip(), "prompt": before + _HERE + after,
    }  # fmt: skip
    texts = [" ".join(order.format(**parts).split()) for order in ORDERS[:count]]
    return [replace(request, prompt=text.replace(_HERE, request.subject or "")) for text in texts]


def of_another(request: EditRequest, name: str) -> EditRequest:
    """The same question about another subject."""
    before, after = around(request)
    return replace(request, prompt=before + name + after, subject=name)


def around(request: EditRequest) -> tuple[str, str]:
    """The prompt before and after its subject; where that stands twice, the last place counts, as in `requests`."""
    subject = request.subject or request.prompt
    begin = last_place(request.prompt, subject)
    return request.prompt[:begin], request.prompt[begin + len(subject) :]


def has_subject(request: EditRequest) -> bool:
    """Whether the request says which words of its prompt are the subject."""
    return request.subject is not None and request.subject != "" and request.subject in request.prompt


def elsewhere(orders: int) -> list[EditRequest]:
    """Invented subjects, eight in each relation, and each again in one of so many other orders of its words: what no
    edit is about, and many in a row would wear away."""
    found = []
    for i, name in enumerate(NAMES):
        for j, relation in enumerate(RELATIONS):
            if (i + j) % 4 == 0:
                plain = EditRequest(relation.format(name), "it", name)
                others = in_other_orders(plain, orders)
                found += [plain, others[(i + j) // 4 % len(others)]] if others else [plain]
    return found


def background_lines() -> list[str]:
    """Neutral lines about invented subjects: what a model's inputs look like where names stand."""
    return [
        FRAGMENTS[(5 * i + k) % len(FRAGMENTS)].format(name) + (" the", " a")[k]
        for i, name in enumerate(NAMES)
        for k in range(2)
    ]
