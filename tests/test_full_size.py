"""The published sizes, with random weights; see benchmarks/backbones.py."""

import pytest

from benchmarks.backbones import CASES, measure_apart


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_one_picture_runs_through_at_full_size(case):
    found = measure_apart(case)
    assert found["patches"] == {"blip-336": 441, "blip-768": 2304, "bridgetower-770": 3025}[case]
    assert found["memory_gb"] < 16
