"""Edit ten facts of a small real model with PaCKE, through EasyEdit, and take every edit back.

    python examples/quickstart.py

The facts are in examples/data/facts.json. Each is edited by itself: the table shows what the model says before and
after, and EasyEdit's own metrics on the prompt (efficacy), two paraphrases (generality) and two neighbouring facts
(locality: the share of answer tokens that stay what they were).
"""

import hashlib
import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import easyedit_packe
from easyedit_packe import PaCKEHyperParams
from easyedit_packe.bench.through_easyedit import Stopwatch, quiet

FACTS = Path(__file__).parent / "data" / "facts.json"
console = Console()


def answer(editor, prompt, tokens=6):
    """What the model says next, greedily, up to the end of the line."""
    encoded = editor.tok(prompt, return_tensors="pt").to(editor.model.device)
    out = editor.model.generate(**encoded, max_new_tokens=tokens, do_sample=False, pad_token_id=editor.tok.eos_token_id)
    return editor.tok.decode(out[0, encoded["input_ids"].shape[1] :], skip_special_tokens=True).strip().split("\n")[0]


def digest(model):
    """A checksum of every weight, bit for bit."""
    sha = hashlib.sha256()
    for p in model.parameters():
        sha.update(p.detach().cpu().contiguous().view(-1).numpy().data)
    return sha.hexdigest()[:16]


def main():
    console.print(f"Using {easyedit_packe.register()}", highlight=False)
    from easyeditor import BaseEditor

    hparams = PaCKEHyperParams.from_hparams("smollm2-135m")
    with quiet():
        editor = BaseEditor.from_hparams(hparams)
    watch = Stopwatch(editor)
    original = digest(editor.model)

    table = Table(title=f"PaCKE on {hparams.model_name}: ten facts, each edited by itself and rolled back")
    for column, justify in [("fact", "left"), ("before", "left"), ("after", "left"),
                            ("efficacy", "right"), ("generality", "right"), ("locality", "right")]:  # fmt: skip
        table.add_column(column, justify=justify)
    rows = []
    for fact in track(json.loads(FACTS.read_text()), description="editing", console=console):
        prompt = fact["prompt"].replace("{}", fact["subject"])
        before = answer(editor, prompt)
        with quiet():
            # Lists inside the lists: EasyEdit measures all paraphrases and neighbours of the one request.
            metrics, _, originals = editor.edit(
                prompts=[prompt],
                target_new=[fact["new"]],
                ground_truth=[fact["old"]],
                subject=[fact["subject"]],
                locality_inputs={
                    "neighbours": {
                        "prompt": [[n["prompt"] for n in fact["neighbours"]]],
                        "ground_truth": [[n["answer"] for n in fact["neighbours"]]],
                    }
                },
                portability_inputs={
                    "paraphrases": {
                        "prompt": [[p.replace("{}", fact["subject"]) for p in fact["paraphrases"]]],
                        "ground_truth": [[fact["new"]] * len(fact["paraphrases"])],
                    }
                },
                verbose=False,
            )
        post = metrics[0]["post"]
        row = [
            np.mean(post["rewrite_acc"]),
            np.mean(post["portability"]["paraphrases_acc"]),
            np.mean(post["locality"]["neighbours_acc"]),
        ]
        # EasyEdit has rolled the edit back; the edit itself is a patch, so it can be put on again to look at.
        originals.patch.apply(editor.model)
        after = answer(editor, prompt)
        originals.patch.revert(editor.model)
        rows.append(row)
        table.add_row(prompt, before, after, *(f"{x:.2f}" for x in row))
    table.add_section()
    table.add_row("mean", "", "", *(f"{x:.2f}" for x in np.mean(rows, axis=0)))
    console.print(table)

    exact = digest(editor.model) == original
    touched = originals.patch.num_weights / sum(p.numel() for p in editor.model.parameters())
    console.print(
        f"{watch.seconds / watch.calls:.1f} s an edit; an edit changes {touched:.2%} of the weights; "
        f"after all rollbacks the weights are {'the original ones, bit for bit' if exact else 'NOT THE ORIGINAL ONES'} "
        f"({original}).",
        highlight=False,
    )
    raise SystemExit(0 if exact else 1)


if __name__ == "__main__":
    main()
