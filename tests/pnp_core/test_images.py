import csv
import io

import numpy as np
import pytest
from PIL import Image

from pnp_core.errors import UnreadableImage
from pnp_core.images import VOC_PALETTE, decode_image, decode_label_map, encode_label_map

LIMIT = 100_000_000


def encoded(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=options.pop("format", "PNG"), **options)
    return buffer.getvalue()


def test_label_map_survives_as_palette_png_with_voc_colours():
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    data = encode_label_map(labels)
    assert np.array_equal(decode_label_map(data), labels)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "P"
        assert np.array_equal(np.array(image.convert("RGB")).reshape(-1, 3), VOC_PALETTE)


def test_palette_is_the_one_of_real_voc_masks(shared_data):
    with Image.open(next((shared_data / "VOCdevkit/VOC2012/SegmentationClass").glob("*.png"))) as image:
        official = np.array(image.getpalette()).reshape(-1, 3)
    assert np.array_equal(VOC_PALETTE[:21], official[:21])


def test_rgb_mask_is_refused():
    with pytest.raises(UnreadableImage, match="not mode RGB"):
        decode_label_map(encoded(Image.new("RGB", (2, 2))))


def test_exif_rotation_is_applied():
    image = Image.new("RGB", (40, 20))
    exif = image.getexif()
    exif[0x0112] = 6
    assert decode_image(encoded(image, format="JPEG", exif=exif), LIMIT).shape == (40, 20, 3)


def test_sixteen_bit_grey_is_scaled_not_saturated():
    values = np.array([[0, 256 * 100], [256 * 200, 65535]], dtype=np.uint16)
    found = decode_image(encoded(Image.fromarray(values)), LIMIT)
    assert found[..., 0].tolist() == [[0, 100], [200, 255]]


def test_transparency_is_laid_on_white():
    assert decode_image(encoded(Image.new("RGBA", (1, 1), (10, 20, 30, 0))), LIMIT).tolist() == [[[255, 255, 255]]]


def test_pixel_limit_is_checked_before_decoding():
    with pytest.raises(UnreadableImage, match="20x20 pixels are over the limit of 399"):
        decode_image(encoded(Image.new("RGB", (20, 20))), 399)


def test_empty_file_says_so():
    with pytest.raises(UnreadableImage, match="empty file"):
        decode_image(b"", LIMIT)


def test_every_hostile_picture_is_decoded_or_refused_with_a_reason_as_documented(shared_data):
    with (shared_data / "hostile_BEHAVIOUR.tsv").open(newline="") as file:
        expected = {row["name"]: row for row in csv.DictReader(file, delimiter="\t")}
    for name, row in expected.items():
        data = (shared_data / "hostile" / name).read_bytes()
        # Pillow gives half a picture when a broken stream is loaded a second time; we refuse it.
        if row["load"] == "ok" and not row["exif_orientation"].startswith("getexif"):
            width, height = map(int, row["size"].split("x"))
            transposed = row["exif_transpose"]
            if "x" in transposed:
                width, height = map(int, transposed.split("x"))
            assert decode_image(data, LIMIT).shape == (height, width, 3), name
        else:
            with pytest.raises(UnreadableImage) as error:
                decode_image(data, LIMIT)
            assert str(error.value)
            assert "\n" not in str(error.value)
