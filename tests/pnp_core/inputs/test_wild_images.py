"""Pictures that programs write and that are easily read wrongly without a word."""

import io
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from pnp_core.errors import UnreadableImage
from pnp_core.inputs.images import decode_image
from tests.images import PHOTOGRAPH, RGB, decoded, off, saved, tiff

RGB12 = RGB.astype(np.uint16) << 4
NEAR_INFRARED = 255 - np.asarray(PHOTOGRAPH.convert("L"))


@pytest.fixture
def wild(shared_data):
    return shared_data / "wild"


# Inputs of public bug reports.


def test_planes_of_16_bits_are_told_apart(wild):
    found = decoded((wild / "planar16-tiff/rgb_uint16_planar_full.tif").read_bytes())
    stored = tifffile.imread(wild / "planar16-tiff/rgb_uint16_planar_full.tif").transpose(1, 2, 0)
    assert off(found.pixels, stored / 257) <= 1
    with Image.open(wild / "planar16-tiff/plain.jpg") as same:
        assert np.abs(found.pixels.astype(float) - np.asarray(same.convert("RGB"))).mean() < 5


def test_near_infrared_is_no_opacity(wild):
    found = decoded((wild / "rgbnir-as-alpha/aerial_rgbnir_gdal_alpha.tif").read_bytes())
    assert np.round(found.pixels.mean((0, 1))).tolist() == [148, 111, 87]
    assert found.notes == ("band 4 of 4 is said to be opacity and is a picture: left out",)


def test_12_bits_in_16_are_scaled_by_12(wild):
    found = decoded((wild / "gray12-in-16/gray_12bit_in_16.png").read_bytes())
    assert found.pixels.max() == round(3088 * 255 / 4095)
    assert "brightest value 3088: taken for 12 bits" in found.notes


def test_three_bands_of_floats_are_read(wild):
    found = decoded((wild / "tiff-multiband-reason/rgb_float32.tif").read_bytes())
    assert off(found.pixels, tifffile.imread(wild / "tiff-multiband-reason/rgb_float32.tif") * 255) <= 1


# The same kinds in other clothes.


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_colours_of_12_bits_in_16_are_scaled_by_12(compression):
    found = decoded(tiff((RGB12, {"compression": compression})))
    assert off(found.pixels, RGB12 * (255 / 4095)) <= 1
    assert any("taken for 12 bits" in note for note in found.notes)


def by_opencv(ending: str, pixels: np.ndarray, *parameters: int) -> bytes:
    done, data = cv2.imencode(ending, pixels[..., ::-1], parameters)
    assert done
    return data.tobytes()


def packbits(pixels: np.ndarray, turn: int = 1) -> bytes:
    """A TIFF of one strip in PackBits, which no library here writes: all in literal runs."""
    raw = pixels.tobytes()
    packed = b"".join(bytes([len(raw[i : i + 128]) - 1]) + raw[i : i + 128] for i in range(0, len(raw), 128))
    data = bytearray(tiff((pixels, {"rowsperstrip": len(pixels), "extratags": [(274, "H", 1, turn, True)]})))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        places = [file.pages[0].tags[name].valueoffset for name in ("Compression", "StripOffsets", "StripByteCounts")]
    for place, value, size in zip(places, (32773, len(data), len(packed)), (2, 4, 4), strict=True):
        data[place : place + size] = value.to_bytes(size, "little")
    return bytes(data) + packed


DEEP = {
    "png": lambda pixels: by_opencv(".png", pixels),
    "lzw": lambda pixels: by_opencv(".tiff", pixels, cv2.IMWRITE_TIFF_COMPRESSION, 5),
    "packbits": packbits,
}


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("kind", DEEP)
def test_colours_of_few_bits_in_16_are_scaled_by_them_in_every_packing(kind, bits):
    values = RGB.astype(np.uint16) << bits - 8
    found = decoded(DEEP[kind](values))
    assert off(found.pixels, values * (255 / (2**bits - 1))) <= 1
    assert any(f"taken for {bits} bits" in note for note in found.notes) == (bits < 16)


@pytest.mark.parametrize("kind", DEEP)
def test_dark_colours_of_8_bits_stored_twice_in_16_stay_dark(kind):
    dark = RGB // 10
    assert off(decoded(DEEP[kind](dark.astype(np.uint16) * 257)).pixels, dark) == 0


def test_dark_grey_of_8_bits_stored_twice_in_16_stays_dark():
    dark = np.asarray(PHOTOGRAPH.convert("L")) // 10
    assert off(decoded(saved(Image.fromarray(dark.astype(np.uint16) * 257), "PNG")).pixels[..., 0], dark) == 0


def test_turned_picture_of_few_bits_is_upright_and_scaled():
    found = decoded(packbits(RGB12, turn=6))
    assert off(found.pixels, np.rot90(RGB12, -1) * (255 / 4095)) <= 1


def test_dark_colours_of_16_bits_under_opacity_are_read_as_they_are_and_noted():
    opaque = np.dstack([RGB12, np.full(RGB12.shape[:2], 65535, np.uint16)])
    done, data = cv2.imencode(".png", opaque[..., [2, 1, 0, 3]])
    assert done
    (note,) = decoded(data.tobytes()).notes
    assert note.startswith("hardly any contrast: all values lie between")


def test_14_bits_in_16_of_full_brightness_stay_as_they_are():
    values = np.asarray(PHOTOGRAPH.convert("L")).astype(np.uint16) << 6
    assert off(decoded(saved(Image.fromarray(values), "PNG")).pixels[..., 0], values >> 8) == 0


@pytest.mark.parametrize("level", [0, 128, 255])
def test_blank_picture_is_noted(level):
    data = saved(Image.new("RGB", (20, 10), (level, level, level)), "PNG")
    assert decoded(data).notes == ("blank: all pixels are alike",)


@pytest.mark.parametrize(
    "thumbnail",
    [{"subfiletype": 1}, {"extratags": [(255, "H", 1, 2, True)]}],
    ids=["reduced copy", "old tag"],
)
@pytest.mark.parametrize("pixels", [RGB, RGB.astype(np.float32) / 255], ids=["8 bits", "floats"])
def test_full_page_is_used_where_a_reduced_copy_comes_first(thumbnail, pixels):
    found = decoded(tiff((RGB[::4, ::4], thumbnail), (pixels, {})))
    assert off(found.pixels, RGB) <= 1
    assert "reduced copies or masks come first: page 2 of the file is used" in found.notes


def test_reduced_copies_behind_the_picture_are_no_other_pictures():
    found = decoded(tiff((RGB, {}), (RGB[::2, ::2], {"subfiletype": 1}), (RGB[::4, ::4], {"subfiletype": 1})))
    assert found.notes == ()
    assert off(found.pixels, RGB) == 0


def test_camera_raw_file_is_not_taken_for_its_thumbnail():
    data = tiff((RGB[::4, ::4], {"subfiletype": 1, "subifds": 1}), (RGB, {}))
    with pytest.raises(UnreadableImage, match=r"camera raw files, such as DNG.*convert it"):
        decoded(data)


def test_lone_page_marked_as_a_reduced_copy_is_used_and_noted():
    found = decoded(tiff((RGB, {"subfiletype": 1})))
    assert found.notes == ("the file says that this is a reduced copy, and has no other page",)


def test_opacity_of_a_tiff_is_still_opacity():
    mask = np.zeros((64, 96), np.uint8)
    mask[10:50, 20:80] = 255
    found = decoded(tiff((np.dstack([RGB, mask]), {"extrasamples": ["unassalpha"]})))
    assert found.notes == ("transparency laid on white",)
    assert found.pixels[0, 0].tolist() == [255, 255, 255]
    assert off(found.pixels[10:50, 20:80], RGB[10:50, 20:80]) == 0


def test_fourth_band_of_a_map_is_no_opacity_whatever_is_in_it():
    noise = np.random.default_rng(0).integers(1, 255, (64, 96), dtype=np.uint8)
    pixel_scale = (33550, "d", 3, (0.5, 0.5, 0.0), True)
    how = {"extrasamples": ["unassalpha"], "extratags": [pixel_scale]}
    assert off(decoded(tiff((np.dstack([RGB, noise]), how))).pixels, RGB) == 0


@pytest.mark.parametrize("depth", [8, 16])
def test_four_bands_without_names_give_the_first_three(depth):
    values = np.dstack([RGB, NEAR_INFRARED]).astype(f"uint{depth}") * (257 if depth == 16 else 1)
    found = decoded(tiff((values, {"photometric": "minisblack", "planarconfig": "contig"})))
    assert off(found.pixels, RGB) <= 1
    assert any(note.startswith("4 bands that the file does not name") for note in found.notes)


def test_bands_beyond_the_colours_are_left_out_and_noted():
    found = decoded(tiff((np.dstack([RGB, NEAR_INFRARED]), {"extrasamples": ["unspecified"]})))
    assert off(found.pixels, RGB) == 0
    assert found.notes == ("1 of 4 bands left out",)


def test_premultiplied_opacity_is_divided_out():
    mask = np.where(np.arange(96) < 48, 255, 102).astype(np.uint8) * np.ones((64, 1), np.uint8)
    colours = (RGB.astype(np.uint32) * mask[..., None] // 255).astype(np.uint16) * 257
    stored = np.dstack([colours, mask.astype(np.uint16) * 257])
    found = decoded(tiff((stored, {"extrasamples": ["assocalpha"]})))
    share = mask[..., None] / 255
    assert off(found.pixels, RGB * share + 255 * (1 - share)) <= 3


@pytest.mark.parametrize("depth", [8, 16])
def test_premultiplied_opacity_of_grey_is_divided_out(depth):
    mask = np.where(np.arange(96) < 48, 255, 0).astype(np.uint8) * np.ones((64, 1), np.uint8)
    stored = np.dstack([RGB[..., 0] * (mask > 0), mask]).astype(f"uint{depth}") * (257 if depth == 16 else 1)
    how = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["assocalpha"]}
    found = decoded(tiff((stored, how)))
    assert off(found.pixels[..., 0], np.where(mask, RGB[..., 0], 255)) <= 1


def test_turned_tiff_of_floats_is_upright():
    found = decoded(tiff((RGB.astype(np.float32) / 255, {"extratags": [(274, "H", 1, 6, True)]})))
    assert off(found.pixels, np.rot90(RGB, -1)) <= 1
    assert "EXIF orientation applied" in found.notes


@pytest.mark.parametrize(
    ("pixels", "how", "says"),
    [
        (np.zeros((8, 8, 3), np.complex64), {}, "TIFF of 3 RGB bands of 64-bit values: not read"),
        (RGB.astype(np.float64) - 300, {}, "values from -300"),
        (np.full((8, 8, 3), np.nan, np.float32), {}, "values from nan"),
    ],
)
def test_what_is_not_read_is_said_with_bands_and_bits(pixels, how, says):
    with pytest.raises(UnreadableImage) as error:
        decoded(tiff((pixels, how)))
    assert says in str(error.value)


def test_portable_maps_that_are_not_read_are_said():
    with pytest.raises(UnreadableImage, match=r"PAM \(P7\) is not read; convert it"):
        decoded(b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n\0\0\0")
    with pytest.raises(UnreadableImage, match="a portable map of floats in colour"):
        decoded(b"PF\n1 1\n-1.0\n" + bytes(12))


def test_band_beside_grey_is_left_out_and_noted():
    pair = np.dstack([RGB[..., 0], NEAR_INFRARED])
    found = decoded(tiff((pair, {"photometric": "minisblack", "planarconfig": "contig"})))
    assert off(found.pixels[..., 0], RGB[..., 0]) == 0
    assert found.notes == ("1 of 2 bands left out",)


def test_unsigned_values_of_32_bits_are_not_taken_for_signed_ones():
    values = np.full((8, 8), 4_000_000_000, np.uint32)
    with pytest.raises(UnreadableImage, match=r"values from 4e\+09 to 4e\+09: convert the picture"):
        decoded(tiff((values, {"photometric": "minisblack"})))


def test_compression_that_is_not_read_is_said():
    done, data = cv2.imencode(".tiff", RGB.astype(np.float32), (cv2.IMWRITE_TIFF_COMPRESSION, 5))
    assert done
    with pytest.raises(UnreadableImage, match="TIFF of 3 RGB bands of 32-bit floats, LZW: not read; convert it to 8"):
        decoded(data.tobytes())


def test_bomb_in_a_tiff_is_not_unpacked():
    data = bytearray(tiff((RGB.astype(np.float32), {"compression": "zlib", "rowsperstrip": 64})))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        page = file.pages[0]
        count, offset = page.tags["StripByteCounts"], page.tags["StripOffsets"]
    bomb = zlib.compress(bytes(64 << 20), 9)
    data[offset.valueoffset : offset.valueoffset + 4] = len(data).to_bytes(4, "little")
    data[count.valueoffset : count.valueoffset + 4] = len(bomb).to_bytes(4, "little")
    with pytest.raises(UnreadableImage, match="decompression bomb"):
        decoded(bytes(data) + bomb)


def test_bands_of_which_parts_are_missing_are_refused():
    data = tiff((RGB.astype(np.float32), {"rowsperstrip": 8, "compression": "zlib"}))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        height = file.pages[0].tags["ImageLength"].valueoffset
    taller = data[:height] + (640).to_bytes(4, "little") + data[height + 4 :]
    with pytest.raises(UnreadableImage, match="TIFF of 3 RGB bands of 32-bit floats, Deflate: parts of it are missing"):
        decoded(taller)


def test_pixel_limit_holds_for_bands_too():
    with pytest.raises(UnreadableImage, match="96x64 pixels are over the limit of 100"):
        decode_image(tiff((RGB.astype(np.float32), {})), 100)


def test_gamma_that_is_not_applied_is_said():
    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    plain = saved(PHOTOGRAPH, "PNG")
    linear = plain[:33] + chunk(b"gAMA", (100_000).to_bytes(4, "big")) + plain[33:]
    usual = plain[:33] + chunk(b"gAMA", (45_455).to_bytes(4, "big")) + plain[33:]
    assert decoded(linear).notes == ("the file's gamma 1 is not applied",)
    assert decoded(usual).notes == ()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_near_infrared_said_to_be_multiplied_in_divides_no_colours(dtype):
    top, rng = np.iinfo(dtype).max, np.random.default_rng(0)
    ramp = np.linspace(0.2, 0.9, 64 * 48).reshape(48, 64, 1)
    bands = np.concatenate([ramp, 1 - ramp, ramp**2, 0.6 * ramp + 0.1 * rng.random(ramp.shape)], axis=2)
    values = (bands * top).astype(dtype)
    found = decoded(tiff((values, {"photometric": "rgb", "extrasamples": ["assocalpha"]})))
    expected = values[..., :3] if dtype == np.uint8 else values[..., :3] >> 8
    assert np.abs(found.pixels.astype(int) - expected).max() <= 1
    assert any("said to be opacity" in note for note in found.notes)


def test_colours_multiplied_by_a_real_opacity_are_laid_on_white():
    opacity = np.zeros((16, 16, 1), np.uint8)
    opacity[4:12, 4:12] = 255
    values = np.concatenate([np.full((16, 16, 3), 90, np.uint8) * (opacity > 0), opacity], axis=2)
    found = decoded(tiff((values, {"photometric": "rgb", "extrasamples": ["assocalpha"]})))
    assert (found.pixels[5, 5] == 90).all()
    assert (found.pixels[0, 0] == 255).all()


@pytest.mark.parametrize("brightest", [300, 5970, 65535])
def test_a_pgm_of_16_bits_is_in_the_range_that_it_says(brightest):
    values = np.linspace(0, brightest, 64 * 48).astype(">u2")
    found = decoded(b"P5 64 48 65535\n" + values.tobytes())
    assert np.abs(found.pixels[..., 0].astype(int) - (values >> 8).reshape(48, 64)).max() <= 1
