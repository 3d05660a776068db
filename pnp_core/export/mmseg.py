"""The folder layout of mmsegmentation, with a dataset configuration for it."""

from __future__ import annotations

from types import TracebackType

from pnp_core.errors import UsageError
from pnp_core.export.base import upright_jpeg
from pnp_core.export.labelled import Finished, Labelled
from pnp_core.storage.run_folder import RunFolder

CONFIG = "dataset.py"


class MmSegmentation:
    """`img_dir/train/NAME.jpg`, `ann_dir/train/NAME.png`, and `dataset.py` to name in a `_base_` list.

    Pictures are all JPEG, because a dataset there has one file ending; see `upright_jpeg`.
    """

    def __init__(self, out: RunFolder, finished: Finished, images: bool) -> None:
        self._out, self._colours, self._images = out, finished.named_colours, images

    @staticmethod
    def check(finished: Finished) -> None:
        """Refuse masks of 16 bits, which its `LoadAnnotations` would cut to 8 without a word.

        Raises:
            UsageError: they are.
        """
        if finished.label_type.itemsize > 1:
            raise UsageError(
                "mmsegmentation reads labels up to 254 alone, these masks have 16 bits: use --to png, hf or coco-rle"
            )

    def __enter__(self) -> MmSegmentation:
        return self

    def add(self, image: Labelled) -> None:
        """Write one."""
        self._out.write(f"ann_dir/train/{image.name}.png", image.mask_png)
        if self._images:
            self._out.write(f"img_dir/train/{image.name}.jpg", upright_jpeg(image.name, image.sample.image))

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._out.write(CONFIG, self._config().encode())

    def _config(self) -> str:
        names, palette = zip(*self._colours, strict=True)
        # `ascii` of strings and numbers is Python that says the same again: names from data cannot leave their place.
        return (
            "# Made by `pnp-ovss export --to mmseg`. Set data_root to this folder; 255 is ignored, as by default.\n"
            f"metainfo = dict(classes={list(names)!a}, palette={[list(colour) for colour in palette]!a})\n"
            "train_dataset = dict(\n"
            "    type='BaseSegDataset',\n"
            "    data_root='.',\n"
            "    data_prefix=dict(img_path='img_dir/train', seg_map_path='ann_dir/train'),\n"
            "    img_suffix='.jpg',\n"
            "    seg_map_suffix='.png',\n"
            "    reduce_zero_label=False,\n"
            "    ignore_index=255,\n"
            "    metainfo=metainfo,\n"
            ")\n"
        )
