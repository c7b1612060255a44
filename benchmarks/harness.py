"""EleutherAI's lm-evaluation-harness on the default model, before an edit and after PaCKE's and PaCKE+'s.

    pip install lm_eval
    python benchmarks/harness.py --json benchmarks/results/lm_eval/smollm2-135m.json

By the commands of docs/lm_eval.md, each a process of its own: `packe edit`, `packe apply`, `lm_eval run`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from easyedit_packe.model.fetch import fetch

EXAMPLES = Path(__file__).parent.parent / "examples" / "lm_eval"
MODEL = "smollm2-135m"
TASKS = ("packe_edited", "packe_near", "packe_rest", "packe_held_out")
EDITORS = ("PaCKE", "PaCKE+")
PACKE = (sys.executable, "-c", "from easyedit_packe.cli.app import app; app()")


def edited(editor: str, folder: Path) -> Path:
    """A model folder with the facts edited."""
    patch, out = folder / f"{editor}.safetensors", folder / editor
    facts = str(EXAMPLES / "facts.json")
    _run(*PACKE, "edit", "--editor", editor, "--requests", facts, "--model", MODEL, "--out", str(patch))
    _run(*PACKE, "apply", str(patch), "--model", MODEL, "--out", str(out))
    return out


def evaluated(model: Path, folder: Path) -> dict[str, Any]:
    """The harness's results file."""
    _run(
        sys.executable, "-m", "lm_eval", "run", "--model", "hf",
        "--model_args", f"pretrained={model},dtype=float32,max_length=512", "--tasks", ",".join(TASKS),
        "--include_path", str(EXAMPLES), "--device", "cpu", "--batch_size", "4", "--output_path", str(folder),
    )  # fmt: skip
    (file,) = folder.rglob("results_*.json")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def figures(found: dict[str, Any]) -> dict[str, float]:
    """By task: accuracy and its standard error in percent; and the perplexity of a word."""
    results = found["results"]
    row = {task.removeprefix("packe_"): 100 * results[task]["acc,none"] for task in TASKS[:-1]}
    row |= {f"{task.removeprefix('packe_')}_se": 100 * results[task]["acc_stderr,none"] for task in TASKS[:-1]}
    return {**row, "word_perplexity": results["packe_held_out"]["word_perplexity,none"]}


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows, counts = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("unedited", *EDITORS):
            model = fetch(MODEL) if name == "unedited" else edited(name, root)
            found = evaluated(model, root / f"harness-{name}")
            rows[name] = figures(found)
            counts = {task.removeprefix("packe_"): n["effective"] for task, n in found["n-samples"].items()}
            print(name, rows[name])
    if args.json:
        about = {"model": MODEL, **{p: version(p) for p in ("lm_eval", "transformers", "torch")}, "n": counts}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({**about, **rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
