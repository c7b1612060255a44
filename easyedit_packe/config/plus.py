"""`PaCKEPlusHyperParams`: every setting of PaCKE+, in one validated dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from .base import Count, HyperParams, Number, Positive, Rate, Share, Weight
from .packe import Score


@dataclass
class PaCKEPlusHyperParams(HyperParams):
    """Settings of PaCKE+. Defaults are those of `hparams/PaCKE+/smollm2-135m.yaml`, in all layers."""

    ALG: ClassVar[str] = "PaCKE+"
    RETIRED: ClassVar[frozenset[str]] = frozenset({"solver"})

    # Where to edit.
    score: Score = "gradient_norm"
    """Importance of a node from its gradient G [D, M]: "zscore", "gradient_sum" or "gradient_norm"."""
    layers: list[Count] | None = None
    """Layers whose nodes may be chosen, at least one; null takes all (the paper)."""
    num_critical_paths: Positive = 15
    """Key nodes that are edited in each layer."""
    value_nodes: Positive | None = None
    """Value nodes that are edited in each layer; null takes all: what is usual elsewhere tells them apart. Fewer make
    the change less specific."""
    write_at: Literal["all", "subject", "subject_and_target", "from_subject"] = "from_subject"
    """Tokens whose gradient chooses and changes nodes: from the subject's last token on, where subject and relation
    meet, so that other facts of the subject stay; only the subject's, where a fact is looked up; these and the
    target's; or all."""
    trace: Literal["call", "request"] = "request"
    """What is edited together: all requests of a call, or each request by itself, remembered by the next."""

    # How to edit.
    num_steps: Positive = 15
    """Most looks at all texts, at least 2. Between two the smallest change is taken by which, to first order, every
    text gets what it lacks."""
    margin: Weight = 2.0
    """Log-odds that each target token must have: 0 is half of all probability. Pushing further costs the neighbours."""
    ridge: Rate = 0.3
    """Damping of a step, as a share of each text's squared gradient: what is conceded where texts disagree."""
    micro_batch_size: Count = 16
    """Most texts in one forward pass; 0 sets no limit. Less memory, the same result."""
    seed: Count = 42
    """Seed of the sampled texts and of the choice among them."""

    # Where the new target has to come.
    answer_end: str = "."
    """What has to come behind the target, there and in the request; "" leaves it open. A model that speaks freely would
    else go on with whatever it used to say."""
    prefix_contexts: Count = 3
    """Ask for the target behind this many short texts sampled from the model, too, so that it does not hang on the
    prompt's position."""
    prefix_reworded: Count = 2
    """Ask for it behind further such texts after so many of the other words of `relations` and `orders`, too: as people
    ask, in other words and in the middle of a text."""
    prefix_tokens: Positive = 6
    """Length of these texts."""
    orders: Count = 3
    """Ask for the target after this many other orders of the prompt's own words, too: at most six."""
    relations: Count = 2
    """Ask for the target after this many texts that state the same relation of the subject in the package's own words,
    too; the model itself finds them among `contexts.RELATIONS`, where there are any."""
    likeness: Share = 0.8
    """How much alike the model has to go on after a text and after the prompt, for both to state the same relation
    (Bhattacharyya's coefficient of the next token's distributions). No such text is held against the edit below."""
    subject_contexts: Count = 10
    """Ask for the target after this many neutral contexts of the subject ("{} is known for"), too, at most ten, so that
    it comes however the relation is worded. The price: other facts of the subject are drawn to it."""
    context_margin: Number = -2.0
    """Log-odds that the target must have there: above 0 it is what the model says of the subject unasked."""
    context_share: Share = 0.8
    """Stop once the target has them in this share of the contexts, or once a step hardly helps: the rest costs the
    subject's other facts. 1 goes on until it has them in all."""

    # Where nothing may change.
    contrast: Weight = 5.0
    """Weight, in the size of a change, of what it does to other subjects in the same relation and to the subject in
    other relations, against the neutral text's 1."""
    contrast_names: Count = 24
    """Other subjects there: of two hundred invented names so many that are of the subject's kind, as the model reads
    it."""
    contrast_relations: Count = 26
    """Other relations there, of the package's own without those that state the request's, and of the neutral contexts
    without those that are asked for the target."""
    elsewhere: Weight = 50.0
    """Weight of what it does to other subjects in other relations, the same for every edit: one hardly reaches them,
    many in a row would wear them away."""
    null_space: Weight = 200.0
    """Weight, in the size of a change, of what it does to the inputs that a module sees in neutral text and about other
    subjects, and at earlier edits. 0 measures the change itself, and `contrast`, `elsewhere`, `outputs` and
    `memory_weight` have no effect."""
    outputs: Weight = 10.0
    """Weight, in the size of a change, of what it does to all that the model says further on, by the gradients of its
    own texts; 1 is the usual change of an output. 0 measures the output itself: many edits in a row wear the model down
    faster."""
    memory_size: Count = 8
    """Earlier calls' edits, at least this many, that are told apart: one that is rolled back is forgotten, and one of
    the same subject may be written over (see `replay`). Of those before them a sum of fixed size is kept, as long as
    the model holds them. With `null_space` changes are kept off the inputs of all; 0 remembers none."""
    memory_weight: Weight = 6.0
    """Weight of each of them there, against the neutral text's 1."""
    replay: Count = 8
    """Remembered requests about the same subject, at most this many, whose targets must still lead in their own
    prompts. A request that comes again, word for word, replaces the old one."""

    def check(self) -> None:
        self.require(self.num_steps > 1, "num_steps", "at least 2", "the last look is not followed by a change")
        for name, most in (("orders", 6), ("subject_contexts", 10)):
            self.require(getattr(self, name) <= most, name, f"at most {most}", "there are no more")
        self.require(self.layers != [], "layers", "at least one layer, or null", "null takes all")
        self.require(
            self.replay <= self.memory_size, "replay", "at most memory_size", "raise memory_size to what is replayed"
        )
