"""The tests; `check` holds shape annotations against real tensors in every one of them."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""As PEP 484 says, an int passes for a float."""
