"""How threads of OpenMP wait for work: asleep. Read when torch is loaded, so it is set before.

By default they spin for a while. Where another process wants the cores that is time taken from the thread that they
wait for: beside one busy process a forward pass took 4 to 8 times as long (docs/speed.md).
"""

from __future__ import annotations

import os

_ASLEEP = {"GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0", "OMP_WAIT_POLICY": "PASSIVE"}


def wait_asleep() -> None:
    """For this process and those that it starts; whatever the user has set of it wins."""
    if not any(name in os.environ for name in _ASLEEP):
        os.environ.update(_ASLEEP)
