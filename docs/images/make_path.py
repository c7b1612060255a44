"""Draw docs/images/path.png: the critical transmission paths of one edit of the default model, as they are traced.

    python docs/images/make_path.py

Needs matplotlib, which brings Pillow, and the model that `packe model fetch` makes; takes some seconds on a CPU.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from easyedit_packe import EditRequest, PaCKEHyperParams
from easyedit_packe.model.ffn import FFNMap
from easyedit_packe.model.forward import answer_logits
from easyedit_packe.model.hooks import frozen
from easyedit_packe.model.load import load
from easyedit_packe.packe.objective import token_losses
from easyedit_packe.packe.tracing import NodeScores, NodeSets, choose_nodes, trace
from easyedit_packe.requests import collate, encode

MODEL = "smollm2-135m"
REQUEST = EditRequest("The Eiffel Tower is located in the city of", "Rome")
PICTURE = Path(__file__).with_name("path.png")

KEY, VALUE, OTHER, TEXT = "#1f6fb4", "#d9622b", "#c9ced6", "#2b2f36"
SIDE = {"key": -0.21, "value": 0.21}
"""Where the nodes of a kind stand in their layer's column."""
FLOOR = 0.006
"""Lower scores, a few of the last layer's, are drawn here."""


def traced(model: Any, tok: Any, hparams: PaCKEHyperParams) -> tuple[FFNMap, NodeScores, NodeSets]:
    """The score of every node for `REQUEST`, and the nodes of T+ and T-, as an edit begins with them."""
    ffn = FFNMap.of(model)
    batch = collate(encode(tok, [REQUEST]), model.device)
    with frozen(model):
        loss = lambda: token_losses(answer_logits(model, batch), batch.targets).mean()  # noqa: E731
        scores = trace(ffn, [loss], hparams.score)
    return ffn, scores, choose_nodes(scores, hparams.num_critical_paths, hparams.num_negative_paths)


def draw(ffn: FFNMap, scores: NodeScores, nodes: NodeSets) -> Any:
    """A column a layer; in it the keys on the left and the values on the right, each at the height of its score."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.9), dpi=160, facecolor="white", layout="constrained")
    axes = figure.subplots()
    layers = sorted({m.layer for m in ffn.modules})
    for layer in layers[::2]:
        axes.axvspan(layer - 0.5, layer + 0.5, color="#f3f5f9", zorder=0)
    jitter = np.random.default_rng(0).uniform(-0.13, 0.13, ffn.num_nodes)
    path: list[tuple[float, float]] = []
    for m in ffn.modules:
        x, score = m.layer + SIDE[m.kind], scores[m.name].clamp_min(FLOOR).numpy()
        critical, negative = nodes.critical[m.name].numpy(), nodes.negative[m.name].numpy()
        color = KEY if m.kind == "key" else VALUE
        axes.plot(x + jitter, score, ".", color=OTHER, markersize=1.6, markeredgewidth=0, zorder=1)
        axes.plot(np.full(len(negative), x), score[negative], "x", color=TEXT, markersize=4.5, mew=1.1, zorder=3)
        axes.plot(np.full(len(critical), x), score[critical], "o", color=color, ms=4.2, mec="white", mew=0.4, zorder=3)
        axes.plot(x, score[critical[0]], "o", color=color, ms=6.5, mec=TEXT, mew=0.9, zorder=4)
        path.append((x, float(score[critical[0]])))
    axes.plot(*zip(*path, strict=True), color=TEXT, linewidth=1.1, zorder=2)

    axes.set_yscale("log")
    axes.set_ylim(0.8 * FLOOR, None)
    axes.set_yticks([0.01, 0.1, 1, 10], ["0.01", "0.1", "1", "10"])
    axes.tick_params(which="minor", length=0)
    axes.set_xlim(layers[0] - 0.5, layers[-1] + 0.5)
    axes.set_xticks(layers)
    axes.tick_params(labelsize=11, colors=TEXT, length=0)
    axes.set_xlabel("layer", fontsize=13, color=TEXT)
    axes.set_ylabel("score of a node for this edit", fontsize=12, color=TEXT)
    axes.set_title(f"{REQUEST.prompt}  →  {REQUEST.target}", fontsize=15, color=TEXT, pad=32)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    each = {kind: len(next(iter(sets.values()))) for kind, sets in vars(nodes).items()}
    axes.plot([], [], "-o", color=TEXT, mfc="none", label="best path")
    axes.plot([], [], "o", color=KEY, label=f"T+: {each['critical']} keys a layer")
    axes.plot([], [], "o", color=VALUE, label=f"and {each['critical']} values")
    axes.plot([], [], "x", color=TEXT, label=f"T−: {each['negative']} of each")
    axes.plot([], [], "s", color=OTHER, ms=5, label=f"the others, of {ffn.num_nodes:,} each")
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5, frameon=False, fontsize=11.5, labelcolor=TEXT,
        handletextpad=0.4, columnspacing=1.6,
    )  # fmt: skip
    return figure


def main() -> None:
    model, tok = load(MODEL)
    drawn = BytesIO()
    draw(*traced(model, tok, PaCKEHyperParams.from_hparams(MODEL))).savefig(drawn)
    Image.open(drawn).convert("RGB").quantize(128).save(PICTURE, optimize=True)  # a third of the size


if __name__ == "__main__":
    main()
