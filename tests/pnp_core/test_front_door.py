import subprocess
import sys

import pytest

import pnp_core


@pytest.mark.parametrize("name", pnp_core.__all__)
def test_what_the_package_offers_is_there(name):
    assert getattr(pnp_core, name).__name__ == name


def test_the_package_alone_imports_nothing_heavy_and_knows_no_other_name():
    code = "import sys, pnp_core; assert not {'torch', 'prefect', 'pydantic', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = pnp_core.nothing
