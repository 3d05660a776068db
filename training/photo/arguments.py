"""What the scripts of the photo model share on their command lines."""

from __future__ import annotations

import argparse
from pathlib import Path


def parser(description: str | None) -> argparse.ArgumentParser:
    """Photographs, the classifier's weights, and the folder for what is kept between the scripts."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("photos", "weights", "cache"):
        made.add_argument(f"--{name}", type=Path, required=True)
    return made
