"""A part of the bad values of `bad_values` in every test run, all of them among the exhaustive tests."""

import bad_values
import pytest


@pytest.mark.timeout(3000)
@pytest.mark.parametrize(("first", "stride"), [(5, 61), pytest.param(0, 1, marks=pytest.mark.exhaustive)])
def test_bad_values_end_in_a_result_or_a_sentence(tiny_data, first, stride):
    """2,700 cases, of which every sixty-first is enough to see that the script still works."""
    with bad_values.prepared(tiny_data):
        cases = bad_values.cases()
        faults = {case.words: bad_values.fault(case) for case in cases[first::stride]}
    assert len(cases) > 2500
    assert not {words: fault for words, fault in faults.items() if fault}
