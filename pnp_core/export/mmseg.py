"""The folder layout of mmsegmentation, with a dataset configuration for it."""

from __future__ import annotations

from types import TracebackType

from pnp_core.export.base import require_8_bits, upright_jpeg
from pnp_core.export.labelled import SPLITS, Finished, Labelled
from pnp_core.storage.run_folder import RunFolder

CONFIG = "dataset.py"


class MmSegmentation:
    """`img_dir/SPLIT/NAME.jpg`, `ann_dir/SPLIT/NAME.png`, and `dataset.py` to name in a `_base_` list.

    Pictures are all JPEG, because a dataset there has one file ending; see `upright_jpeg`. Its masks have 8 bits.
    """

    takes = frozenset({"val"})

    def __init__(self, out: RunFolder, finished: Finished, images: bool) -> None:
        require_8_bits(finished, "mmsegmentation")
        self._out, self._colours, self._images = out, finished.named_colours, images
        self._splits = {"train"}

    def __enter__(self) -> MmSegmentation:
        return self

    def add(self, image: Labelled) -> None:
        """Write one."""
        self._splits.add(image.split)
        self._out.write(f"ann_dir/{image.split}/{image.name}.png", image.mask_png)
        if self._images:
            self._out.write(f"img_dir/{image.split}/{image.name}.jpg", upright_jpeg(image.name, image.sample.image))

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._out.write(CONFIG, self._config().encode())

    def _config(self) -> str:
        names, palette = zip(*self._colours, strict=True)
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
