"""Tables and figures in the documents are those of the archived rows; `make tables` writes them."""

import json
import re
import sys

import pytest

from easyedit_packe.bench.archive import pack, read

from ..bench.folders import read_rows, write_rows, write_run
from ..conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
import tables
from quotes import FIGURE, TABLE, rewritten
from sources import QuoteError, source


def test_every_table_and_every_quoted_figure_is_what_the_rows_say():
    assert [str(path.relative_to(ROOT)) for path in tables.outdated()] == [], "run `make tables`"


@pytest.mark.parametrize("pattern", [FIGURE, TABLE])
def test_a_changed_digit_is_found(pattern):
    """Each figure and each table of the documents, with one digit changed, is put right again."""
    found = 0
    for document in tables.documents():
        text = document.read_text(encoding="utf-8")
        for quote in pattern.finditer(text):
            digits = [m.start() for m in re.finditer(r"\d", quote[3])]
            at = quote.start(3) + digits[-1] if digits else None
            if at is not None:
                wrong = text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :]
                assert rewritten(wrong, tables.RESULTS) == text
                found += 1
    assert found, "no document quotes anything"


def test_the_command_tells_a_changed_digit_and_writes_it_right(results, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "RESULTS", results)
    (tmp_path / "docs").mkdir()
    readme, more = tmp_path / "README.md", tmp_path / "docs" / "more.md"
    readme.write_text("Half: <!-- = s; zsre; single; PaCKE; efficacy -->50.1<!-- /= -->\n")
    more.write_text("nothing\n")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["tables.py", *arguments])
        return tables.main(), capsys.readouterr().out.splitlines()

    code, said = run("--check")
    assert code == 1
    assert said == [*(f"differs: results/s/report.{end}" for end in ("csv", "md", "tex")), "differs: README.md"]
    assert "50.1" in readme.read_text()
    assert run()[0] == 0
    assert readme.read_text() == "Half: <!-- = s; zsre; single; PaCKE; efficacy -->50.0<!-- /= -->\n"
    assert run("--check") == (0, [])
    report = results / "s" / "report.md"
    report.write_text(report.read_text().replace("50.0", "50.1", 1))
    assert run("--check") == (1, ["differs: results/s/report.md"])


@pytest.fixture
def results(tmp_path):
    """A study of three editors, whose efficacies are 1, 1/2 and 0, and a file of speed."""
    runs, folder = tmp_path / "runs", tmp_path / "results"
    write_run(runs, "PaCKE", [1.0, 0.0])
    write_run(runs, "ROME", [1.0, 1.0])
    slow = write_run(runs, "KN", [0.0, 0.0], label="slow")
    rows = read_rows(slow / "edits.jsonl")
    write_rows(slow / "edits.jsonl", [{**row, "seconds": 8.0, "memory_bytes": None} for row in rows])
    write_run(runs, "PaCKE", [0.25] * 3, protocol="consecutive")
    write_run(runs, "PaCKE", [0.25] * 4, protocol="consecutive", n=4)
    write_run(runs, "PaCKE", [1.0, 1.0], data="counterfact")
    pack(runs, folder / "s.jsonl.zst")
    (folder / "speed").mkdir()
    figures = {"ratio": 4.625, "bytes": 34e6, "rows": [{"a": 1}, {"a": 3}], "dtype": "f"}
    (folder / "speed" / "x.json").write_text(json.dumps(figures))
    return folder


@pytest.mark.parametrize(("quote", "text"), [
    ("s; zsre; single; PaCKE; efficacy", "50.0"),
    ("s; efficacy; PaCKE; single; zsre", "50.0"),  # in any order
    ("s; zsre; single; PaCKE; efficacy; ±", "50.0 ± 50.0"),
    ("s; zsre; single; PaCKE; efficacy; se; .0f", "50"),
    ("s; zsre; single; PaCKE; score", "41.7"),
    ("s; zsre; single; PaCKE; score; .3f", "41.667"),
    ("s; zsre; single; PaCKE; n", "2"),
    ("s; zsre; single; Original model; efficacy", "10.0"),
    ("s; zsre; single; Original model; locality; rome", "100.0"),
    ("s; zsre; single; ROME - PaCKE; efficacy; ±", "50.0 ± 50.0"),  # 0 and 1
    ("s; zsre; single; ROME - PaCKE; efficacy; verdict", "tie"),
    ("s; zsre; single; ROME - KN (slow); efficacy; verdict", "better"),
    ("s; zsre; single; KN (slow) - ROME; efficacy; verdict", "worse"),
    ("s; zsre; single; PaCKE / ROME; efficacy", "0.50"),
    ("s; zsre; consecutive, 3 edits; PaCKE; efficacy", "25.0"),
    ("s; zsre; single; PaCKE; seconds", "2.00"),
    ("s; zsre; single; KN (slow) / PaCKE; seconds; .1f", "4.0"),
    ("s; zsre; single; PaCKE; peak MB", "5"),
    ("s; zsre; single; PaCKE; peak GB; .3f", "0.005"),
    ("s; zsre; single; PaCKE; weights", "7"),
    ("s; zsre; single; PaCKE; perplexity", "1.500"),
    ("s; zsre; single; PaCKE; refused", "0"),
    ("s; counterfact; PaCKE; efficacy", "100.0"),  # where there is one protocol, it need not be named
    ("speed/x.json; ratio; .1f", "4.6"),
    ("speed/x.json; bytes / 1e6; .0f", "34"),
    ("speed/x.json; ratio; .1%", "462.5%"),
    ("speed/x.json; rows.1.a / rows.0.a", "3.0"),
    ("speed/x.json; dtype", "f"),
])  # fmt: skip
def test_figures_by_hand(results, quote, text):
    assert rewritten(f"a <!-- = {quote} --><!-- /= --> b", results) == f"a <!-- = {quote} -->{text}<!-- /= --> b"
    wrapped = quote.replace("; ", ";\n  ")
    assert rewritten(f"<!-- = {wrapped} -->old\n1<!-- /= -->", results).endswith(f"-->{text}<!-- /= -->")


@pytest.mark.parametrize(("quote", "message"), [
    ("t; zsre", "no study 't'; known: s"),
    ("speed/y.json; ratio", "no file 'speed/y.json'"),
    ("speed/x.json; ration", "x.json has no 'ration'"),
    ("speed/x.json; ratio; bytes", "expected one key"),
    ("s; zsre; single; PaCKEE; efficacy", "knows no 'PaCKEE'; .*KN \\(slow\\); ROME; PaCKE"),
    ("s; zsre; single; efficacy", "name editor"),
    ("s; zsre; single; PaCKE", "name column"),
    ("s; zsre; consecutive; PaCKE; efficacy", "it may be .*3 edits.* or .*4 edits"),
    ("s; zsre; single; PaCKE; efficacy; score", "'efficacy' and 'score' are both a column"),
    ("s; counterfact; consecutive; PaCKE; efficacy", "no such table"),
    ("s; counterfact; ROME; efficacy", "ROME has no efficacy"),
    ("s; zsre; single; Original model; locality", "Original model has no locality"),
    ("s; zsre; single; PaCKE; efficacy; generation", "PaCKE has no efficacy"),
    ("s; zsre; single; PaCKE; efficacy; verdict", "a verdict is one on a difference"),
    ("s; zsre; single; PaCKE / ROME; efficacy; ±", "has no '±'"),
    ("s; zsre; single; PaCKE * ROME; efficacy", "a difference or a ratio"),
    ("s; zsre; single; KN (slow); peak MB", "is not known"),
])  # fmt: skip
def test_what_names_nothing_or_several_things_is_an_error(results, quote, message):
    with pytest.raises(QuoteError, match=f"^line 3: .*{message}"):
        rewritten(f"one\n\nthree <!-- = {quote} -->1<!-- /= -->", results)


@pytest.mark.parametrize("text", [
    "<!-- = s; zsre; n; PaCKE --> 1", "1<!-- /= -->", "<!-- table: s\nrows: editor\n-->\n", "<!-- /table -->",
    "<!-- = s; zsre <!-- = s -->1<!-- /= -->",
])  # fmt: skip
def test_a_quote_without_its_end_is_an_error(results, text):
    with pytest.raises(QuoteError, match="without its counterpart"):
        rewritten(text, results)


def test_code_blocks_stay_as_they_are(results):
    quote = "<!-- = s; zsre; single; PaCKE; n -->{}<!-- /= -->"
    text = f"```\n<!-- = s; zsre\n```\n\n{quote}\n\n```console\n<!-- /= -->\n```\n"
    assert rewritten(text.format("9"), results) == text.format("2")


def table(lines, results):
    text = rewritten(f"<!-- table: {lines}\n-->\nold\n<!-- /table -->\n", results)
    assert rewritten(text, results) == text
    return [line for line in text.splitlines() if line.startswith("|")]


def test_a_table_by_hand(results):
    assert table("s; single\nrows: data; editor\ncolumns: efficacy; ± | slow = seconds; .0f\nbold: yes", results) == [
        "| data | editor | efficacy | slow |",
        "| --- | --- | ---: | ---: |",
        "| ZsRE | Original model | 10.0 ± 0.0 | / |",
        "| ZsRE | KN (slow) | 0.0 ± 0.0 | 8 |",
        "| ZsRE | ROME | **100.0 ± 0.0** | 2 |",
        "| ZsRE | PaCKE | 50.0 ± 50.0 | 2 |",
        "| CounterFact | Original model | 10.0 ± 0.0 | / |",
        "| CounterFact | PaCKE | 100.0 ± 0.0 | 2 |",  # alone, and so not the best
    ]


def test_rows_and_columns_are_chosen(results):
    lines = "s\nrows: setting=consecutive,single; editor=PaCKE\ncolumns: zsre; efficacy | counterfact; score; rome"
    assert table(lines, results) == [
        "| setting | editor | ZsRE efficacy | CounterFact score rome |",
        "| --- | --- | ---: | ---: |",
        "| consecutive, 3 edits | PaCKE | 25.0 | / |",
        "| consecutive, 4 edits | PaCKE | 25.0 | / |",
        "| single | PaCKE | 50.0 | 58.3 |",
    ]


@pytest.mark.parametrize(("lines", "message"), [
    ("s\nrows: editor", "a table has the lines rows, columns"),
    ("s\nrows: editor\ncolumns: n\ncolour: red", "a table has the lines rows, columns"),
    ("speed/x.json\nrows: editor\ncolumns: n", "tables are made of studies"),
    ("s\nrows: who\ncolumns: n", "expected any of model, setting, data, editor"),
    ("s\nrows: editor=PaCKEE\ncolumns: n", "no editor 'PaCKEE'"),
    ("s; counterfact\nrows: setting=consecutive\ncolumns: n", "no such rows"),
    ("s; single; zsre\nrows: editor\ncolumns: efficacie", "knows no 'efficacie'"),
    ("s; single; zsre\nrows: editor\ncolumns: efficacy | se = score | se = n", "two column titles are 'se'"),
    ("s; single\nrows: data; editor; data=zsre\ncolumns: n", "two row titles are 'data'"),
])  # fmt: skip
def test_a_wrong_table_is_an_error(results, lines, message):
    with pytest.raises(QuoteError, match=message):
        table(lines, results)


def test_h_and_the_subjects_other_answers_are_quoted_from_rows():
    """By hand from the archive's rows."""
    rows = [r for r in read(tables.RESULTS / "single50.jsonl.zst") if "/single/FT-C" in str(r.get("run", ""))]
    rows = [r for r in rows if "zsre" in r["run"] and "easyedit" in r]
    assert len(rows) == 50
    parts = [("easyedit", "efficacy"), ("easyedit", "generality"), ("easyedit", "locality"), ("subject", "kept")]
    means = [sum(r[family][name] for r in rows) / 50 for family, name in parts]

    def quoted(terms):
        return source(tables.RESULTS, "single50").figure([t.strip() for t in terms.split(";")]).text

    assert quoted("zsre; single; FT-C; kept; subject") == f"{100 * means[3]:.1f}"
    assert quoted("zsre; single; FT-C; H") == f"{100 * 4 / sum(1 / m for m in means):.1f}"
    assert quoted("zsre; single; FT-C - PaCKE; H; verdict") == "better"
    assert quoted("zsre; single; UltraEdit - PaCKE; H; verdict") == "tie"
    with pytest.raises(QuoteError, match="has no H"):
        quoted("zsre; single; Original model; H")
