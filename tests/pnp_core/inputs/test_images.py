import csv
import io

import numpy as np
import pytest
from PIL import Image

from pnp_core.errors import UnreadableImage
from pnp_core.inputs.images import VOC_PALETTE, decode_image, decode_label_map, encode_label_map

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
    assert decode_image(encoded(image, format="JPEG", exif=exif), LIMIT).pixels.shape == (40, 20, 3)


def test_sixteen_bit_grey_is_scaled_not_saturated():
    values = np.array([[0, 256 * 100], [256 * 200, 65535]], dtype=np.uint16)
    found = decode_image(encoded(Image.fromarray(values)), LIMIT)
    assert found.notes == ("brightness scaled to 8 bits",)
    assert found.pixels[..., 0].tolist() == [[0, 100], [200, 255]]


def test_transparency_is_laid_on_white():
    found = decode_image(encoded(Image.new("RGBA", (1, 1), (10, 20, 30, 0))), LIMIT)
    assert found.pixels.tolist() == [[[255, 255, 255]]]
    assert found.notes == ("transparency laid on white",)
    assert decode_image(encoded(Image.new("RGBA", (1, 1), (10, 20, 30, 255))), LIMIT).notes == ()


def test_pixel_limit_is_checked_before_decoding():
    with pytest.raises(UnreadableImage, match="20x20 pixels are over the limit of 399"):
        decode_image(encoded(Image.new("RGB", (20, 20))), 399)


def test_empty_file_says_so():
    with pytest.raises(UnreadableImage, match="empty file"):
        decode_image(b"", LIMIT)


def test_every_hostile_picture_is_decoded_or_refused_with_a_reason_as_documented(shared_data):
    with (shared_data / "hostile_BEHAVIOUR.tsv").open(newline="") as file:
        expected = {row["name"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert len(expected) == 50
    refused = 0
    for name, row in expected.items():
        data = (shared_data / "hostile" / name).read_bytes()
        # Pillow gives half a picture when a broken stream is loaded a second time; we refuse it.
        if row["load"] == "ok" and not row["exif_orientation"].startswith("getexif"):
            width, height = map(int, row["size"].split("x"))
            transposed = row["exif_transpose"]
            if "x" in transposed:
                width, height = map(int, transposed.split("x"))
            assert decode_image(data, LIMIT).pixels.shape == (height, width, 3), name
        else:
            with pytest.raises(UnreadableImage) as error:
                decode_image(data, LIMIT)
            assert str(error.value)
            assert "\n" not in str(error.value)
            refused += 1
    assert refused == 12


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.0, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[0.0, 32768.0, 65535.0]], np.float32), [0, 128, 255]),
        (np.array([[0, 32768, 65535]], np.int32), [0, 128, 255]),
        (np.array([[0, 100, 255]], np.int32), [0, 100, 255]),
    ],
)
def test_wide_grey_values_are_scaled_from_the_range_they_are_in(values, expected):
    found = decode_image(encoded(Image.fromarray(values), format="TIFF"), LIMIT)
    assert found.pixels[0, :, 0].tolist() == expected


@pytest.mark.parametrize("values", [[[-1.0, 0]], [[0.0, 70000]], [[0.0, np.nan]]])
def test_grey_values_of_no_known_range_are_refused(values):
    data = encoded(Image.fromarray(np.array(values, np.float32)), format="TIFF")
    with pytest.raises(UnreadableImage, match="convert the picture to 8 or 16 bits"):
        decode_image(data, LIMIT)


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("animated.gif", "animation: only the first is used"),
        ("animated.webp", "animation: only the first is used"),
        ("exif_orientation_6_nonsquare_photo.jpg", "EXIF orientation applied"),
        ("exif_orientation_2.jpg", "EXIF orientation applied"),
        ("gray16.tif", "brightness scaled to 8 bits"),
        ("palette_with_transparency.png", "transparency laid on white"),
        ("alpha.webp", "transparency laid on white"),
    ],
)
def test_what_was_done_to_a_picture_is_said(shared_data, name, note):
    assert note in decode_image((shared_data / "hostile" / name).read_bytes(), LIMIT).notes


def test_plain_pictures_have_no_notes(shared_data):
    for name in ("UPPER.JPG", "cmyk.jpg", "gray.jpg", "plain.avif", "palette_colour.png"):
        assert decode_image((shared_data / "hostile" / name).read_bytes(), LIMIT).notes == (), name


def test_mirrored_picture_is_shown_upright(shared_data):
    folder = shared_data / "hostile"
    turned = decode_image((folder / "exif_orientation_2.jpg").read_bytes(), LIMIT).pixels
    with Image.open(folder / "exif_orientation_2.jpg") as stored:
        assert np.array_equal(turned, np.array(stored.convert("RGB"))[:, ::-1])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("._applefile.jpg", "macOS side-car"),
        ("unreadable.heif", "HEIF/HEIC is not supported; convert"),
        ("text_named.jpg", "not a picture in a known format"),
        ("bomb_30000x30000.png", "more than 178956970 pixels"),
        ("truncated.png", "truncated"),
    ],
)
def test_reasons_say_what_is_wrong(shared_data, name, reason):
    with pytest.raises(UnreadableImage, match=reason):
        decode_image((shared_data / "hostile" / name).read_bytes(), LIMIT)


def test_eps_is_never_handed_to_ghostscript():
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(UnreadableImage, match="not a picture in a known format"):
        decode_image(eps, LIMIT)


def test_transparent_value_of_sixteen_bit_grey_is_laid_on_white():
    data = encoded(Image.fromarray(np.array([[0, 60000]], dtype=np.uint16)), transparency=0)
    found = decode_image(data, LIMIT)
    assert found.pixels[0, :, 0].tolist() == [255, 234]
    assert "transparency laid on white" in found.notes
