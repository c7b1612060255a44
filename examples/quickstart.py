"""Edit ten facts of a small real model with PaCKE and with PaCKE+, through EasyEdit, and take every edit back.

    python examples/quickstart.py

The facts are in examples/data/facts.json. Each is edited by itself, by each of the two: one table says what came of
it, and what of it hardly any benchmark shows: what an edit does to *other* facts of the same subject.
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import easyedit_packe
from easyedit_packe import LoadedModel, PaCKEHyperParams, PaCKEPlusHyperParams, compute_patch
from easyedit_packe.bench.through_easyedit import Stopwatch, quiet
from easyedit_packe.model.bits import weights_digest
from easyedit_packe.model.generation import greedy_all

FACTS = Path(__file__).parent / "data" / "facts.json"
MODEL = "smollm2-135m"

LEGEND = {
    "efficacy": "share of the new answer's tokens that come after the prompt",
    "generality": "the same after two paraphrases, which no editor sees",
    "locality": 'share of the tokens that stay in the answers about two neighbours ("The Louvre museum is …")',
    "others kept": 'of three other facts of the subject ("The Eiffel Tower was designed by …"), the share that still '
    "begins as before",
    "others drawn": "the share of these that now begins with the new answer",
    "s": "seconds of the edit alone",
}


@dataclass(frozen=True)
class Outcome:
    """What one edit did, measured before it was taken back: shares from 0 to 1, then seconds."""

    efficacy: float
    generality: float
    locality: float
    kept: float
    drawn: float
    seconds: float


def prompt_of(fact: dict[str, Any]) -> str:
    return fact["prompt"].replace("{}", fact["subject"])


def says(editor: Any, prompt: str) -> str:
    """What the model says next, up to the end of the line."""
    return greedy_all(editor.model, editor.tok, [prompt], 6)[0].strip().split("\n")[0]


@torch.no_grad()
def first_token(editor: Any, prompt: str) -> int:
    """The token that the model puts next."""
    ids = editor.tok(prompt, return_tensors="pt")["input_ids"].to(editor.model.device)
    return int(editor.model(input_ids=ids).logits[0, -1].argmax())


def edit(editor: Any, watch: Stopwatch, fact: dict[str, Any]) -> tuple[Outcome, str, Any]:
    """Edit one fact through EasyEdit, which measures and rolls back.

    Returns:
        The outcome, what the edited model says after the prompt, and the edit as a patch.
    """
    prompt, subject, new = prompt_of(fact), fact["subject"], fact["new"]
    others = [o["prompt"].replace("{}", subject) for o in fact["others"]]
    before = [first_token(editor, p) for p in others]
    start = watch.seconds
    with quiet():
        # Lists inside the lists: EasyEdit measures all paraphrases and neighbours of the one request.
        metrics, _, originals = editor.edit(
            prompts=[prompt],
            target_new=[new],
            ground_truth=[fact["old"]],
            subject=[subject],
            locality_inputs={
                "neighbours": {
                    "prompt": [[n["prompt"] for n in fact["neighbours"]]],
                    "ground_truth": [[n["answer"] for n in fact["neighbours"]]],
                }
            },
            portability_inputs={
                "paraphrases": {
                    "prompt": [[p.replace("{}", subject) for p in fact["paraphrases"]]],
                    "ground_truth": [[new] * len(fact["paraphrases"])],
                }
            },
            verbose=False,
        )
    # EasyEdit has rolled the edit back; it is a patch, so it can be put on again to look at what else it does.
    originals.patch.apply(editor.model)
    after = [first_token(editor, p) for p in others]
    said = says(editor, prompt)
    originals.patch.revert(editor.model)
    length = len(editor.tok(prompt)["input_ids"])
    target = editor.tok(f"{prompt} {new}")["input_ids"][length]
    post = metrics[0]["post"]
    outcome = Outcome(
        float(np.mean(post["rewrite_acc"])),
        float(np.mean(post["portability"]["paraphrases_acc"])),
        float(np.mean(post["locality"]["neighbours_acc"])),
        float(np.mean(np.equal(before, after))),
        float(np.mean(np.equal(after, target))),
        watch.seconds - start,
    )
    return outcome, said, originals.patch


@dataclass(frozen=True)
class Row:
    """One fact as the table shows it: what it says then, and by algorithm the outcome and the edited model's words."""

    fact: str
    outcomes: dict[str, tuple[Outcome, str]]


def table_of(rows: Sequence[Row]) -> Table:
    """Two lines a fact, one for each algorithm, and the means."""
    table = Table(box=box.SIMPLE, padding=0, show_edge=False, expand=True)
    table.add_column("fact", ratio=2)
    table.add_column("editor", no_wrap=True)
    table.add_column("says now", no_wrap=True, ratio=1)
    for name in ("effi-\ncacy", "gener-\nality", "local-\nity", "others\nkept", "others\ndrawn", "s"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        outcomes, said = zip(*row.outcomes.values(), strict=True)
        table.add_row(row.fact, lines(row.outcomes), lines(said), *columns_of(outcomes))
        table.add_section()
    names = list(rows[0].outcomes)
    means = [Outcome(*np.mean([astuple(row.outcomes[name][0]) for row in rows], axis=0).tolist()) for name in names]
    table.add_row("mean", lines(names), "", *columns_of(means))
    return table


def columns_of(outcomes: Sequence[Outcome]) -> list[str]:
    *shares, seconds = zip(*map(astuple, outcomes), strict=True)
    return [*(lines(f"{x:.2f}" for x in column) for column in shares), lines(f"{x:.1f}" for x in seconds)]


def lines(texts: Iterable[str]) -> str:
    return "\n".join(texts)


def legend() -> Table:
    """What the columns mean."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_row("")
    for name, meaning in LEGEND.items():
        grid.add_row(name, meaning)
    return grid


def editors_of_one_model() -> dict[str, Any]:
    """A `BaseEditor` for each algorithm, both on the same model in memory."""
    from easyeditor import BaseEditor

    with quiet():
        packe = BaseEditor.from_hparams(PaCKEHyperParams.from_hparams(MODEL))
        hparams = PaCKEPlusHyperParams.from_hparams(MODEL)
        hparams.model_name = LoadedModel(MODEL, packe.model, packe.tok)
        return {"PaCKE": packe, "PaCKE+": BaseEditor.from_hparams(hparams)}


def seconds_of_first_edit(editor: Any, fact: dict[str, Any]) -> float:
    """With all that is made once of a model; the edit is not applied."""
    start = time.perf_counter()
    request = {"prompt": prompt_of(fact), "target_new": fact["new"], "subject": fact["subject"]}
    compute_patch(editor.model, editor.tok, [request], editor.hparams)
    return time.perf_counter() - start


def run(facts: Sequence[dict[str, Any]], console: Console) -> bool:
    """Edit, show the table, and say whether all weights are the original ones, bit for bit."""
    editors = editors_of_one_model()
    watches = {name: Stopwatch(editor) for name, editor in editors.items()}
    plus = editors["PaCKE+"]
    original = weights_digest(plus.model)
    rows, patches = [], {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=1 + len(editors) * len(facts))
        for fact in facts:
            console.print(f"{prompt_of(fact)} …", highlight=False)
            outcomes: dict[str, tuple[Outcome, str]] = {}
            for name, editor in editors.items():
                if editor is plus and not rows:
                    progress.update(task, description="PaCKE+ reads background text")
                    first = seconds_of_first_edit(plus, fact)
                    progress.advance(task)
                progress.update(task, description=f"{name}: {fact['subject']}")
                outcome, said, patches[name] = edit(editor, watches[name], fact)
                outcomes[name] = (outcome, said)
                console.print(f"  {name:6} {said}", highlight=False)
                progress.advance(task)
            rows.append(Row(f"{prompt_of(fact)} [b]{fact['new']}[/], not {fact['old']}", outcomes))
    console.print(f"{len(rows)} facts of {MODEL}, each edited by itself and taken back:\n", highlight=False)
    console.print(table_of(rows))
    console.print(legend())
    size = sum(p.numel() for p in plus.model.parameters())
    shares = ", ".join(f"{name} {patch.num_weights / size:.1%}" for name, patch in patches.items())
    background = first - float(np.mean([row.outcomes["PaCKE+"][0].seconds for row in rows]))
    exact = weights_digest(plus.model) == original
    console.print(
        f"\nWeights that an edit changes: {shares}. PaCKE+'s first edit took {max(0, background):.0f} s longer than "
        "the others: what it learns about a model is kept in the cache.\nAfter "
        f"all rollbacks the weights are {'the original ones, bit for bit' if exact else 'NOT THE ORIGINAL ONES'}.",
        highlight=False,
    )
    return exact


def next_steps() -> str:
    """Three commands to go on with."""
    packe = Path(sys.executable).with_name("packe")
    name = os.path.relpath(packe) if packe.is_relative_to(Path.cwd()) else "packe"
    return f"""
What to try next (each has --help):
  {name} edit --editor PaCKE+ --subject "The Louvre" --prompt "{{}} is in the city of" \\
    --target Oslo -o oslo.st
  {name} ask --patch oslo.st "To see the Louvre, travel to the city of"
  {name} bench -m editor=PaCKE,PaCKE+ data=demo n=5 && {name} report runs"""


def main() -> None:
    console = Console(file=sys.stdout)  # the real one, also while EasyEdit is kept quiet
    console.width = min(console.width, 100)
    console.print(
        f"Using {easyedit_packe.register()}. This takes about four minutes on two cores, and the first time two more: "
        "PaCKE+ lets the model write text about nothing in particular, and reads it.",
        highlight=False,
    )
    exact = run(json.loads(FACTS.read_text(encoding="utf-8")), console)
    console.print(next_steps(), highlight=False, soft_wrap=True, markup=False)
    raise SystemExit(0 if exact else 1)


if __name__ == "__main__":
    main()
