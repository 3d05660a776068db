"""What `tune` may choose of each method."""

import pytest

from pnp_core.errors import UsageError
from pnp_core.methods import METHODS, method_config


@pytest.mark.parametrize("name", sorted(METHODS.builtin))
def test_each_method_has_a_threshold_that_tune_can_choose_or_says_why_not(name):
    kind = method_config(name)
    if name == "ensemble":
        with pytest.raises(UsageError, match="tune each of its runs"):
            kind.space()
        return
    values = kind.space()["masks.threshold"]
    assert len(values) == len(set(values)) > 3
    assert all(0 <= value < 1 for value in values)
    assert ("masks.blur" in kind.space()) == (name != "classify")
