"""The folder layout of mmsegmentation, with a dataset configuration for it."""

from __future__ import annotations

from types import TracebackType

import numpy as np

from pnp_core.data import IGNORE
from pnp_core.export.base import require_8_bits, upright_jpeg
from pnp_core.export.labelled import SPLITS, Finished, Labelled
from pnp_core.inputs.images import encode_label_map, palette_of
from pnp_core.storage.run_folder import RunFolder

CONFIG = "dataset.py"


class MmSegmentation:
    """`img_dir/SPLIT/NAME.jpg`, `ann_dir/SPLIT/NAME.png`, and `dataset.py` to name in a `_base_` list.

    Pictures are all JPEG, because a dataset there has one file ending; see `upright_jpeg`. Its masks have 8 bits.
    """

    takes = frozenset({"val"})

    def __init__(self, out: RunFolder, finished: Finished, images: bool) -> None:
        require_8_bits(finished, "mmsegmentation", by_place=True)
        self._out, self._finished, self._images = out, finished, images
        self._splits = {"train"}

    def __enter__(self) -> MmSegmentation:
        return self

    def add(self, image: Labelled) -> None:
        """Write one."""
        self._splits.add(image.split)
        self._out.write(f"ann_dir/{image.split}/{image.name}.png", self._mask(image))
        if self._images:
            self._out.write(f"img_dir/{image.split}/{image.name}.jpg", upright_jpeg(image.name, image.sample.image))

    def _mask(self, image: Labelled) -> bytes:
        """As the run has it; of classes with ids of their own their places, by which mmsegmentation knows them."""
        finished = self._finished
        if not finished.own_ids:
            return image.mask_png
        places = np.full(image.void + 1, IGNORE, np.uint8)
        places[list(finished.places)] = list(finished.places.values())
        colours = palette_of([f"#{bytes(colour).hex()}" for _, colour in finished.named.values()])
        return encode_label_map(places[image.labels], colours)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._out.write(CONFIG, self._config().encode())

    def _config(self) -> str:
        names, palette = zip(*self._finished.named.values(), strict=True)
        # `ascii` of strings and numbers is Python that says the same again: names from data cannot leave their place.
        head = (
            "# Made by `pnp-ovss export --to mmseg`. Set data_root to this folder; 255 is ignored, as by default.\n"
            f"metainfo = dict(classes={list(names)!a}, palette={[list(colour) for colour in palette]!a})\n"
        )
        return head + "".join(_dataset(split) for split in SPLITS if split in self._splits)


def _dataset(split: str) -> str:
    return (
        f"{split}_dataset = dict(\n"
        "    type='BaseSegDataset',\n"
        "    data_root='.',\n"
        f"    data_prefix=dict(img_path='img_dir/{split}', seg_map_path='ann_dir/{split}'),\n"
        "    img_suffix='.jpg',\n"
        "    seg_map_suffix='.png',\n"
        "    reduce_zero_label=False,\n"
        "    ignore_index=255,\n"
        "    metainfo=metainfo,\n"
        ")\n"
    )
