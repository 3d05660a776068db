"""Masks in three lines of Python: what the stages do, with pictures and masks in memory and nothing written."""

from pnp_core.segmenter.result import Segmentation
from pnp_core.segmenter.segmenter import Segmenter

__all__ = ["Segmentation", "Segmenter"]
