"""Answers and edits as HTML. What a person or the model has written is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from ..trace.trace import Trace, would_change
from .comparison import Group, Row
from .sessions import Edit, Session

STYLE = """
.gradio-container { max-width: 1280px !important; margin: 0 auto !important; }
.packe-notice, .packe-done { padding: .6em .9em; margin: 0; overflow-wrap: anywhere;
  background: var(--background-fill-secondary); color: var(--body-text-color); border-left: 4px solid #15803d; }
.packe-notice { border-color: #c2410c; }
.packe-answers { width: 100%; border-collapse: collapse; table-layout: fixed; margin: 0 !important; }
.packe-answers th, .packe-answers td { text-align: left; vertical-align: top; padding: .35em .8em .35em 0 !important;
  border: 0 !important; border-bottom: 1px solid var(--border-color-primary) !important; overflow-wrap: anywhere;
  color: var(--body-text-color) !important; }
.packe-answers tbody th { padding-top: 1em !important; }
.packe-answers, .packe-answers thead, .packe-answers tbody, .packe-answers tr { border: 0 !important; }
.packe-answers .result { font-weight: 400; opacity: .75; }
.packe-answers td.was { opacity: .75; }
.packe-answers td.ok::before { content: "✓ "; color: #15803d; font-weight: 700; }
.packe-answers td.not::before { content: "✗ "; color: #c2410c; font-weight: 700; }
.dark .packe-answers td.ok::before { color: #4ade80; }
.dark .packe-answers td.not::before { color: #fb923c; }
.packe-edit { margin: 0 !important; overflow-wrap: anywhere; color: var(--body-text-color); }
@media (max-width: 640px) {
  .packe-answers thead { display: none; }
  .packe-answers tr, .packe-answers td, .packe-answers tbody th { display: block; padding: .1em 0 !important; }
  .packe-answers td, .packe-answers tbody th { border-bottom: 0 !important; }
  .packe-answers tr { border-bottom: 1px solid var(--border-color-primary) !important; padding: .4em 0; }
  .packe-answers tbody th { padding-top: .8em !important; }
  .packe-answers td[data-title]::after { content: " (" attr(data-title) ")"; opacity: .75; }
}
"""


def notice(message: str) -> str:
    """What went wrong."""
    return f'<p class="packe-notice" role="alert">{escape(message)}</p>'


def done(message: str) -> str:
    """What was done."""
    return f'<p class="packe-done" role="status">{escape(message)}</p>'


def answers(groups: Sequence[Group], edited: bool) -> str:
    """Every question with its two answers, or one where nothing is edited."""
    now = "<th>with your edits</th>" if edited else ""
    body = "".join(_group(group, edited) for group in groups)
    head = f"<thead><tr><th>text</th><th>unedited model</th>{now}</tr></thead>"
    return f'<table class="packe-answers">{head}<tbody>{body}</tbody></table>'


def _group(group: Group, edited: bool) -> str:
    result = f' <span class="result">{escape(group.result)}</span>' if edited else ""
    head = f'<tr><th colspan="{2 + edited}">{escape(group.title)}{result}</th></tr>'
    return head + "".join(_row(row, edited) for row in group.rows)


def _row(row: Row, edited: bool) -> str:
    a = row.answer
    cells = f"<td>{escape(a.prompt)}\u00a0…</td>"
    cells += f'<td class="was" data-title="unedited">{escape(a.before) or "(nothing)"}</td>'
    if edited:
        mark = "ok" if row.holds else "not"
        cells += f'<td class="{mark}" data-title="now">{escape(a.now) or "(nothing)"}</td>'
    return f"<tr>{cells}</tr>"


def edit(e: Edit, num_weights: int) -> str:
    """One line of the list of edits."""
    return (
        f'<p class="packe-edit"><b>{escape(e.request.prompt)}</b> → <b>{escape(e.request.target)}</b><br>'
        f"<small>{escape(cost(e, num_weights))}</small></p>"
    )


def cost(e: Edit, num_weights: int) -> str:
    """For example "PaCKE, 1.5 s, 4.5 MB, 0.4% of the weights"."""
    share = e.patch.num_weights / num_weights
    return f"{e.editor}, {e.seconds:.1f} s, {size(e)}, {share:.1%} of the weights"


def would(t: Trace) -> str:
    """What an edit of a traced fact would change, and how to read its picture."""
    change = would_change([t])
    return (
        f"PaCKE would change {change.vectors:,} key and value vectors, {change.share:.1%} of the weights, a patch of "
        f"{change.bytes / 1e6:.1f} MB. Below is how much each vector matters for this fact, layer by layer."
    )


def size(e: Edit) -> str:
    """Of the edit's tensors, which is that of its file but for some hundred bytes a parameter."""
    total = sum(t.nbytes for s in e.patch.slices.values() for t in (s.index, s.old, s.new))
    return f"{total / 1e6:.1f} MB"


def downloads(session: Session, key: str) -> str:
    """Links to the files of a session's edits."""
    if not session.edits:
        return ""
    links = (("edits.safetensors", "Download as a patch"), ("adapter.zip", "Download as a LoRA adapter"))
    return " · ".join(f'<a href="/edits/{quote(key)}/{file}" download>{text}</a>' for file, text in links)
