"""Every committed table, and every figure quoted in README.md and docs/, from the archived rows.

    python benchmarks/tables.py            # `make tables`: write them anew
    python benchmarks/tables.py --check    # change nothing; exit code 1 and a list, where something differs

A study is an archive of rows, `benchmarks/results/STUDY.jsonl.zst` (`packe pack FOLDER FILE` makes one). Its tables are
`benchmarks/results/STUDY/report.md`, `.csv` and `.tex`, the same that `packe report` writes. Studies so far:
smollm2-135m (20 records of the paper's sample, version 0.1.0), costs (what an edit costs, dev records, version 0.1.0),
single50 (50 records, singly and some editors in a row, by every metric), sweeps (PaCKE along two hyper-parameters, dev
records, and scores of nodes).
Figures of speed are in `benchmarks/results/speed/*.json`; lm_eval/, precision/ and collisions/ beside it hold those of
the lm-evaluation-harness, of half precision and of facts that share a path.

Quotes in Markdown stand between HTML comments, which no reader sees. Write anything between the two comments, or
nothing: the next `make tables` fills it in, and tests/docs/test_quotes.py fails where it is not what the rows say.
Comments show in code blocks, so quote nothing there.

One figure:

    by <!-- = single50; zsre; single; PaCKE; score -->92.9<!-- /= --> percent
    <!-- = single50; zsre; single; PaCKE; score; ± -->92.9 ± 1.3<!-- /= -->
    <!-- = costs; zsre; single; seconds; PaCKE+ / ROME -->0.54<!-- /= --> of ROME's time
    <!-- = single50; zsre; single; score; PaCKE+ - PaCKE; ± -->1.6 ± 1.4<!-- /= -->, a
    <!-- = single50; zsre; single; score; PaCKE+ - PaCKE; verdict -->tie<!-- /= -->
    <!-- = speed/smollm2-135m-cpu.json; peak_extra_bytes / 1e6; .0f -->34<!-- /= --> MB

First the source: a study, or a JSON file. Of a study, then, in any order and separated by semicolons:

- data: zsre, counterfact, mcf
- protocol: single, batch, consecutive, epochs; or a whole setting, "consecutive, 20 edits"
- editor: as the tables name it, "Original model" included; "A - B" is a difference, "A / B" a ratio. The error of a
  difference is that of the paired differences, record by record
- family of metrics: easyedit (where none is named), rome, subject, free, distracting, portability, generation (0.1.0)
- column: H; kept, drawn (of the family subject); efficacy, generality, locality, score (percent, means over the records
  that all editors of the table share), n (records); seconds (an edit), peak MB, peak GB, weights (changed), perplexity
  (over the unedited model's), refused
- statistic: nothing (the mean), se (standard error), ± (mean ± standard error), verdict (of a difference: "better",
  "worse", or "tie" where it is below twice its standard error)
- a format of Python's: .0f, .2f, .1%
- model, where a study holds several

A term that names nothing, and terms that fit several rows or none, are errors. Of a JSON file: a key (`rows.3.gflop`
goes deeper), "A / B" (keys, or a number), and a format.

A table, whose rows are all combinations that the study has and whose columns are terms as above (a title may stand
before them); `bold` marks the best editor in each column for the same data and setting:

    <!-- table: smollm2-135m; easyedit
    rows: data=zsre,counterfact; setting=single,batch,consecutive; editor=PaCKE,FT-C
    columns: efficacy | generality | locality | score; ± | perplexity ratio = perplexity; .2f
    bold: yes
    -->
    <!-- /table -->

    <!-- table: smollm2-135m; single; easyedit
    rows: editor
    columns: ZsRE = zsre; score; ± | CounterFact = counterfact; score; ±
    -->
    <!-- /table -->
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from quotes import rewritten
from sources import QuoteError

from easyedit_packe.bench.archive import SUFFIX
from easyedit_packe.bench.report import write_report

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def documents() -> list[Path]:
    """Where figures are quoted."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def made() -> Iterator[tuple[Path, str]]:
    """Each file that depends on the rows, and what it has to hold.

    Raises:
        QuoteError: a quote cannot be made; with the file and line.
    """
    with tempfile.TemporaryDirectory() as folder:
        for archive in sorted(RESULTS.glob(f"*{SUFFIX}")):
            study = archive.name.removesuffix(SUFFIX)
            write_report([archive], Path(folder) / study)
            for file in sorted((Path(folder) / study).iterdir()):
                yield RESULTS / study / file.name, file.read_text(encoding="utf-8")
    for document in documents():
        try:
            yield document, rewritten(document.read_text(encoding="utf-8"), RESULTS)
        except QuoteError as e:
            raise QuoteError(f"{document.relative_to(ROOT)}, {e}") from e


def outdated() -> dict[Path, str]:
    """Those that differ from what they have to hold."""
    return {p: text for p, text in made() if not p.is_file() or p.read_text(encoding="utf-8") != text}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; say what differs")
    check = parser.parse_args().check
    try:
        different = outdated()
    except QuoteError as e:
        print(e, file=sys.stderr)
        return 1
    for path, text in different.items():
        print(f"{'differs' if check else 'wrote'}: {path.relative_to(ROOT)}")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return int(check and bool(different))


if __name__ == "__main__":
    sys.exit(main())
