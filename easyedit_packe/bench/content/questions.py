"""Fixed questions about an edited subject, by its kind, for data sets that ask none themselves.

An edit must not answer them: each asks for something that no record edits. No editor ever sees them, and they share no
wording with the contexts that PaCKE+ trains on (`tests/bench/test_questions.py`).
"""

from __future__ import annotations

import re
from typing import Literal

Kind = Literal["person", "place", "work", "organisation", "thing"]
"""What a subject is."""

QUESTIONS: dict[Kind, tuple[str, ...]] = {
    "person": (
        "As a child, {} cared for a small",
        "For breakfast, {} usually ate",
        "Among all relatives, {} felt closest to a younger",
        "Old photographs show {} with hair that is",
        "Next to a door, {} would look very",
        "The season {} enjoyed most was",
        "Close friends described {} as very",
        "On long journeys {} preferred to travel by",
    ),
    "place": (
        "A traveller who reaches {} in January finds the air",
        "In the fields around {} farmers mostly grow",
        "Families living near {} often keep a",
        "Old houses close to {} have walls made of",
        "The bird most often seen above {} would be the",
        "At lunch, visitors to {} are often served",
        "Seen from an aeroplane, the roofs of {} look",
        "After dark the streets near {} become",
    ),
    "work": (
        "Most people who finish {} feel",
        "The first minutes of {} show weather that is",
        "Some critics complained that {} had too many",
        "On the cover of {} one sees a large",
        "A bored pupil would call {} very",
        "Those who gave {} as a present wrapped it in",
        "An animal that appears in {} for a moment would be a",
        "Teachers who discuss {} at school mostly ask about",
    ),
    "organisation": (
        "The sign outside {} shows letters painted in",
        "In the canteen of {} the favourite dish would be",
        "On their first day, new staff at {} receive a free",
        "Those who deal with {} call its staff very",
        "Early meetings at {} begin with a cup of",
        "During a hot summer, the rooms of {} become",
        "For a children's charity, {} once gave away",
        "The calendar that {} sends to its friends shows a",
    ),
    "thing": (
        "Somebody who touches {} for the first time would call it very",
        "Next to a football, {} would look very",
        "A small child would draw {} in the colour",
        "Left outside in the rain, {} would soon become",
        "The smell of {} reminds many people of",
        "Most families would keep {} in the",
        "If {} fell on the floor, it would sound like a",
        "In winter one sees {} less often than in",
    ),
}  # fmt: skip
"""Eight prompts of each kind; each ends where an answer of a word or two begins."""

RELATIONS: tuple[tuple[Kind, str], ...] = (
    ("thing", r"programming language|licen[sc]e|constellation|species|genus|\bgene\b|vessel|aquatic unit|submarine"),
    ("work", r"original(ly)? (language|network|aired?)|\bair(s|ed)?\b|premier|\bdebut|first shown|network|\bseason \d"),
    ("work", r"\b(film|movie|album|song|novel|book|poem|musical|artwork|painting|sculpture|episode|sequel|lyrics)\b"),
    ("work", r"\b(author|wrote|written|direct(ed|or)|star of|starring|cast|screenwriter|compos(er|ed)|publish\w*)\b"),
    ("work", r"\bseries\b|label was responsible|^who (is|was) \{\} by|country of origin|released|come out"),
    ("work", r"characters in \{\}|\bplay(s|ed) .* (in|on) \{\}|\bsings? \{\}"),
    ("place", r"capital|twin (city|town)|continent|official language|language spoken|they understand|\blaw in\b"),
    ("place", r"leader of \{\}|mayor|in charge of|population|county|administrative|tributary|celestial"),
    ("place", r"physical feature|body of water"),
    ("organisation", r"\bleague\b|headquarter|town or city does|li[cs]+ensed|\bceo\b|affiliated with the$"),
    ("person", r"\bborn\b|birth|mother tongue|native|\bsp(eak|oke|eaker|eaks)\b|language used by|\{\} writes|citizen"),
    ("person", r"national|occupation|profession|career|\bdie[ds]?\b|death|pass(ed|es)? away|expired|succumb|killed"),
    ("person", r"life ended|gender|\bsex\b|father|mother|sister|brother|progenitor|male parent|spouse|wife|husband"),
    ("person", r"employ|\bwork(s|ed)? (in|as|for|at)\b|took up work|area of work|domain of activity|field of|position"),
    ("person", r"\{\}.*\bplays?\b|\bplayed by \{\}|\bperform|voice type|instrument|holds the title|\brole held"),
    ("person", r"religion|follower of|medical|illness|suffer|attend|stud(y|ied)\b|educated|doctoral|originally from"),
    ("person", r"originate[sd] from|\b(he|she|his|her)\b|\bteam\b|fiction|universe|character|seen in what"),
    ("person", r"given name|elected|candidate|buried|reside|\bage\b|\btone\b|^\{\}, the$|\{\} is an?$"),
    ("organisation", r"founde[dr]|form(ed in|ation of)|started in|\bbased in|parent company|subsidiary|industry"),
    ("organisation", r"airport|airline|product (of \{\}|made by|does)|owned by|home city"),
    ("organisation", r"abolish|cease|dissol|come into being|established"),
    ("work", r"\{\}.*(formulated|created|originated|developed|from) in|\{\}(, | was | is )?from$|language of"),
    ("thing", r"manufactur|produce|\bproduct\b|made|develop|create|creation|invent|discover|compan|named|called"),
    ("place", r"located|location|situated|where is|\bin which (state|country|city)|\bstate\b|\briver\b|architect"),
    ("place", r"\{\}(, | is | can be found | lies | is found )?(with)?in$|be found"),
)  # fmt: skip
"""Words that say of what kind a subject is, looked for in this order in the prompt with {} for its subject."""

NOUNS: tuple[tuple[Kind, str], ...] = (
    ("thing", r"^(hms|uss|sms|ss) |^sm u-|\b(massacre|rebellion|war|battle|games|festival)\b"),
    ("organisation", r"\b(university|college|school|airlines?|records|f\.?c\.?|party|company|inc|ltd|ag)\b"),
    ("organisation", r"\b(association|federation|institute|foundation|society|union|press|bank|orchestra)\b"),
    ("place", r"\b(river|lake|mount|mountains?|peak|range|islands?|airport|station|park|bridge|castle|house|hall)\b"),
    ("place", r"\b(church|cathedral|museum|street|rocks|bluff|glacier|county|district|province|kingdom|city)\b"),
)  # fmt: skip
"""The same for words in the subject itself. They decide only where the prompt asks nothing that is asked of persons and
works: titles and names hold such words, too."""

OPEN = r"\b(from|member|family|war|conflict|country|universit|school|college|label|sport|known|did|won)"
"""Relations of many kinds: there a subject that looks like a personal name is taken for a person."""

PARTICLES = ("de", "van", "von", "da", "di", "al", "der", "du", "la", "bin", "ibn", "of")
"""Small words inside personal names."""


def kind_of(subject: str, prompt: str) -> Kind:
    """The kind of a subject, guessed by rule from the prompt's words for the relation, then from the subject's own."""
    asked = prompt.replace(subject, "{}").strip().lower() if subject else prompt.lower()
    relation = next((kind for kind, words in RELATIONS if re.search(words, asked)), None)
    own = next((kind for kind, words in NOUNS if re.search(words, subject.lower())), None)
    if own is not None and relation in (None, "thing", "place", "organisation"):
        return own
    if relation is not None:
        return relation
    return "person" if re.search(OPEN, asked) and _is_name(subject) else "thing"


def questions_about(subject: str, prompt: str) -> list[str]:
    """The eight questions of the subject's kind, filled in, without any that shares three words in a row with `prompt`.

    Args:
        subject: as it stands in the prompt.
        prompt: the edited prompt, filled in or with {} in the subject's place.
    """
    edited = set(triples(prompt.replace(subject, "{}") if subject else prompt))
    return [q.replace("{}", subject) for q in QUESTIONS[kind_of(subject, prompt)] if not edited & set(triples(q))]


def triples(text: str) -> list[tuple[str, ...]]:
    """Every three words in a row, in small letters; {} is a word."""
    words = re.findall(r"\{\}|[^\W_]+", text.lower())
    return list(zip(words, words[1:], words[2:], strict=False))


def _is_name(subject: str) -> bool:
    """Two to four words, each with a capital letter, without digits and article."""
    words = subject.split()
    capital = all(word[0].isupper() or word in PARTICLES for word in words)
    return 2 <= len(words) <= 4 and capital and words[0] != "The" and not any(c.isdigit() for c in subject)
