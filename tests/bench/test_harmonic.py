"""H, by hand; its error and paired differences, against many repeated samples."""

import json

import numpy as np
import pytest

from easyedit_packe.bench.report import find_runs, harmonic, markdown
from easyedit_packe.bench.report.harmonic import difference, h, parts

from .folders import write_run


def case(case_id, efficacy, generality, locality, kept):
    family = {"efficacy": efficacy, "generality": generality, "locality": locality}
    return {"case_id": case_id, "easyedit": family, "subject": {"kept": kept}}


def test_h_is_of_the_means_and_near_its_smallest_part():
    records = parts([case(1, 1.0, 0.0, 1.0, 0.5), case(2, 1.0, 1.0, 0.0, 0.0)])
    assert records == {1: (1.0, 0.0, 1.0, 0.5), 2: (1.0, 1.0, 0.0, 0.0)}
    assert h(records).mean == pytest.approx(4 / (1 / 1 + 1 / 0.5 + 1 / 0.5 + 1 / 0.25))
    assert h(records).n == 2
    assert harmonic.harmonic([1.0, 0.0, 1.0, 1.0]) == 0.0


def test_records_without_all_four_parts_do_not_count_and_seeds_are_averaged():
    whole, without = case(1, 1.0, 1.0, 1.0, 1.0), case(2, 1.0, 1.0, 1.0, 1.0)
    del without["subject"]
    assert parts([whole, without, case(1, 0.0, 1.0, 1.0, 0.5)]) == {1: (0.5, 1.0, 1.0, 0.75)}


def records_of(rng, n, means):
    return {i: tuple((rng.random(4) < means).astype(float)) for i in range(n)}


def test_the_error_is_that_of_repeated_samples():
    rng, means = np.random.default_rng(1), np.array([0.95, 0.6, 0.8, 0.5])
    samples = [h(records_of(rng, 100, means)).mean for _ in range(300)]
    errors = [h(records_of(rng, 100, means)).error for _ in range(5)]
    assert np.mean(errors) == pytest.approx(np.std(samples), rel=0.15)


def test_a_paired_difference_is_sharper_than_two_errors():
    """Where two editors fail on the same records, their difference is known better than either figure."""
    rng = np.random.default_rng(2)
    ours = records_of(rng, 100, np.array([0.9, 0.6, 0.8, 0.6]))
    theirs = {i: (*v[:3], 0.9 * v[3]) for i, v in ours.items()}
    found = difference(ours, theirs)
    assert found.mean == pytest.approx(h(ours).mean - h(theirs).mean)
    assert found.error < 0.3 * h(ours).error
    assert difference(ours, ours).mean == 0
    assert found.n == 100


def test_a_report_is_always_the_same():
    records = records_of(np.random.default_rng(3), 20, np.array([0.9, 0.6, 0.8, 0.6]))
    cases = [case(i, *values) for i, values in records.items()]
    assert h(parts(cases)) == h(parts(cases[::-1])) == h(parts(cases))


def test_the_report_shows_h_and_who_ties(tmp_path):
    """ROME and MEMIT are equal but for one record; FT-C draws every subject to its target."""
    kept = {"ROME": [1.0] * 6, "MEMIT": [1.0] * 5 + [0.9], "FT-C": [0.0] * 6}
    for editor, values in kept.items():
        folder = write_run(tmp_path, editor, [1.0] * 6)
        rows = [json.loads(line) for line in (folder / "cases.jsonl").read_text().splitlines()]
        for row, k in zip(rows, values, strict=True):
            row["subject"] = {"kept": k, "drawn": 1 - k, "kl": 0.25}
        (folder / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = markdown(find_runs([tmp_path]))
    assert "Highest H: zsre ROME, tied with MEMIT." in text
    (row,) = [line for line in text.split("Other questions")[1].splitlines() if line.startswith("| FT-C")][:1]
    assert "0.0 ± 0.0" in row
    assert "100.0 ± 0.0" in row
    assert "0.25 ± 0.00" in row
    first = text.split("EasyEdit's metrics")[1]
    assert f"{100 * 4 / (1 + 2 + 4 + 1):.1f}" in next(x for x in first.splitlines() if x.startswith("| ROME"))
