"""`python -m flows.cli` is `pnp-ovss`."""

import sys

from flows.cli import main

sys.exit(main())
