"""H, by hand; its error and paired differences, against many repeated samples."""

import numpy as np
import pytest

from easyedit_packe.bench.report import harmonic
from easyedit_packe.bench.report.harmonic import difference, h, parts


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
