"""Decoded pixels of every format that is read, against what was put in or what a second decoder sees."""

import io
import struct
import zlib
from importlib.resources import files

import cv2
import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile
from PIL import Image

from pnp_core.inputs.images import DecodedImage, decode_image

PHOTOGRAPH = (
    Image.open(io.BytesIO((files("pnp_core") / "_photographs/cat.jpg").read_bytes())).convert("RGB").resize((96, 64))
)
RGB = np.asarray(PHOTOGRAPH)
GREY = np.asarray(PHOTOGRAPH.convert("L"))
RGB16 = RGB.astype(np.uint16) * 257
GREY16 = np.asarray(PHOTOGRAPH.convert("L")).astype(np.uint16) * 257
OPACITY = np.where(np.add.outer(np.arange(64), np.arange(96)) % 7 < 4, 255, 90).astype(np.uint8)


def decoded(data: bytes) -> DecodedImage:
    return decode_image(data, 10**8)


def saved(image: Image.Image | np.ndarray, name: str, **how) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, format=name, **how)
    return buffer.getvalue()


def by_opencv(ending: str, pixels: np.ndarray, *parameters: int) -> bytes:
    done, data = cv2.imencode(ending, pixels[..., ::-1] if pixels.ndim == 3 else pixels, parameters)
    assert done
    return data.tobytes()


def by_tifffile(pixels: np.ndarray, **how) -> bytes:
    buffer = io.BytesIO()
    colours = {"photometric": "rgb"} if pixels.ndim == 3 else {}
    tifffile.imwrite(buffer, pixels, **{"metadata": None, **colours, **how})
    return buffer.getvalue()


def png(width: int, height: int, bits: int, colour: int, rows: list[bytes], *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG by its parts, for what no library writes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def of_bits(bits: int) -> bytes:
    """A ramp of all greys that so many bits have."""
    values = np.arange(16) % 2**bits
    packed = np.packbits(((values[:, None] >> np.arange(bits)[::-1]) & 1).astype(np.uint8).ravel()).tobytes()
    return png(16, 1, bits, 0, [packed])


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


def on_white(colours: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    share = opacity[..., None] / 255
    return colours * share + 255 * (1 - share)


RGBA, RGBA16 = np.dstack([RGB, OPACITY]), np.dstack([RGB16, OPACITY.astype(np.uint16) * 257])
EXACT = {
    "png-1-bit": (of_bits(1), grey((np.arange(16) % 2 * 255)[None])),
    "png-2-bit": (of_bits(2), grey((np.arange(16) % 4 * 85)[None])),
    "png-4-bit": (of_bits(4), grey((np.arange(16) * 17)[None])),
    "png-grey": (saved(GREY, "PNG"), grey(GREY)),
    "png-grey-16": (saved(GREY16, "PNG"), grey(GREY)),
    "png-grey-alpha": (saved(np.dstack([GREY, OPACITY]), "PNG"), on_white(grey(GREY), OPACITY)),
    "png-rgb": (saved(RGB, "PNG"), RGB),
    "png-rgb-16": (by_opencv(".png", RGB16), RGB),
    "png-rgba": (saved(RGBA, "PNG"), on_white(RGB, OPACITY)),
    "png-rgba-16": (
        png(96, 64, 16, 6, [row.astype(">u2").tobytes() for row in RGBA16]),
        on_white(RGB, OPACITY),
    ),
    "apng": (saved(PHOTOGRAPH, "PNG", save_all=True, append_images=[PHOTOGRAPH.rotate(180)]), RGB),
    "bmp": (saved(RGB, "BMP"), RGB),
    "bmp-grey": (saved(GREY, "BMP"), grey(GREY)),
    "bmp-by-opencv": (by_opencv(".bmp", RGB), RGB),
    "dib": (saved(RGB, "DIB"), RGB),
    "gif": (saved(GREY, "GIF"), grey(GREY)),
    "webp": (saved(RGB, "WEBP", lossless=True), RGB),
    "webp-alpha": (saved(RGBA, "WEBP", lossless=True, exact=True), on_white(RGB, OPACITY)),
    "avif": (saved(np.full_like(RGB, 128), "AVIF", quality=100), np.full_like(RGB, 128)),
    "pbm": (b"P1\n4 1\n0 1 1 0\n", grey(np.array([[255, 0, 0, 255]]))),
    "pbm-packed": (b"P4\n8 1\n\x0f", grey(np.array([[255] * 4 + [0] * 4]))),
    "pgm": (saved(GREY, "PPM"), grey(GREY)),
    "pgm-text": (b"P2\n3 1\n15\n0 5 15\n", grey(np.array([[0, 85, 255]]))),
    "pgm-12-bit": (b"P5\n3 1\n4095\n" + struct.pack(">3H", 0, 2048, 4095), grey(np.array([[0, 128, 255]]))),
    "pgm-16-bit": (b"P5\n96 64\n65535\n" + GREY16.astype(">u2").tobytes(), grey(GREY)),
    "ppm": (saved(RGB, "PPM"), RGB),
    "ppm-16-bit": (b"P6\n96 64\n65535\n" + RGB16.astype(">u2").tobytes(), RGB),
    "pfm": (saved((GREY / 255).astype(np.float32), "PPM"), grey(GREY)),
    "jpeg-2000": (saved(RGB, "JPEG2000"), RGB),
    "jpeg-2000-codestream": (saved(RGB, "JPEG2000", no_jp2=True), RGB),
    "jpeg-2000-grey": (saved(GREY, "JPEG2000"), grey(GREY)),
    "jpeg-2000-grey-16": (saved(GREY16, "JPEG2000"), grey(GREY)),
    "jpeg-2000-alpha": (saved(RGBA, "JPEG2000"), on_white(RGB, OPACITY)),
    "tiff": (saved(RGB, "TIFF"), RGB),
    "tiff-lzw": (saved(RGB, "TIFF", compression="tiff_lzw"), RGB),
    "tiff-deflate": (saved(RGB, "TIFF", compression="tiff_adobe_deflate"), RGB),
    "tiff-packbits": (saved(RGB, "TIFF", compression="packbits"), RGB),
    "tiff-1-bit": (saved(PHOTOGRAPH.convert("1"), "TIFF"), np.asarray(PHOTOGRAPH.convert("1").convert("RGB"))),
    "tiff-fax": (
        saved(PHOTOGRAPH.convert("1"), "TIFF", compression="group4"),
        np.asarray(PHOTOGRAPH.convert("1").convert("RGB")),
    ),
    "tiff-big": (saved(RGB, "TIFF", big_tiff=True), RGB),
    "tiff-big-endian": (by_tifffile(RGB16, byteorder=">"), RGB),
    "tiff-tiled": (by_tifffile(RGB, tile=(32, 32)), RGB),
    "tiff-tiled-16": (by_tifffile(RGB16, tile=(32, 32), compression="zlib", predictor=True), RGB),
    "tiff-planar": (by_tifffile(RGB.transpose(2, 0, 1), planarconfig="separate"), RGB),
    "tiff-planar-16": (by_tifffile(RGB16.transpose(2, 0, 1), planarconfig="separate"), RGB),
    "tiff-planar-16-tiled": (by_tifffile(RGB16.transpose(2, 0, 1), planarconfig="separate", tile=(32, 32)), RGB),
    "tiff-planar-16-deflate": (
        by_tifffile(RGB16.transpose(2, 0, 1), planarconfig="separate", compression="zlib"),
        RGB,
    ),
    "tiff-planar-deflate": (by_tifffile(RGB.transpose(2, 0, 1), planarconfig="separate", compression="zlib"), RGB),
    "tiff-rgb-16": (by_tifffile(RGB16), RGB),
    "tiff-rgb-16-deflate": (by_tifffile(RGB16, compression="zlib", predictor=True), RGB),
    "tiff-rgb-16-lzw": (by_opencv(".tiff", RGB16, cv2.IMWRITE_TIFF_COMPRESSION, 5), RGB),
    "tiff-rgba": (saved(RGBA, "TIFF"), on_white(RGB, OPACITY)),
    "tiff-rgba-16": (by_tifffile(RGBA16, extrasamples=["unassalpha"]), on_white(RGB, OPACITY)),
    "tiff-grey": (saved(GREY, "TIFF"), grey(GREY)),
    "tiff-grey-16": (saved(GREY16, "TIFF"), grey(GREY)),
    "tiff-grey-16-lzw": (saved(GREY16, "TIFF", compression="tiff_lzw"), grey(GREY)),
    "tiff-grey-32": (by_tifffile(GREY16.astype(np.uint32)), grey(GREY)),
    "tiff-grey-64-float": (by_tifffile(GREY / 255), grey(GREY)),
    "tiff-grey-alpha": (
        by_tifffile(np.dstack([GREY, OPACITY]), photometric="minisblack", extrasamples=["unassalpha"]),
        on_white(grey(GREY), OPACITY),
    ),
    "tiff-white-is-zero": (by_tifffile(255 - GREY, photometric="miniswhite"), grey(GREY)),
    "tiff-white-is-zero-16": (by_tifffile(65535 - GREY16, photometric="miniswhite"), grey(GREY)),
    "tiff-float": (by_tifffile((RGB / 255).astype(np.float32)), RGB),
    "tiff-float-grey": (saved((GREY / 255).astype(np.float32), "TIFF"), grey(GREY)),
    "tiff-float-planar": (
        by_tifffile((RGB / 255).astype(np.float32).transpose(2, 0, 1), planarconfig="separate", tile=(16, 16)),
        RGB,
    ),
    "tiff-half-float": (by_tifffile((RGB / 255).astype(np.float16)), RGB),
    "tiff-multi-page": (saved(RGB, "TIFF", save_all=True, append_images=[PHOTOGRAPH.rotate(180)]), RGB),
}


@pytest.mark.parametrize("name", EXACT)
def test_pixels_are_those_that_were_put_in(name):
    data, expected = EXACT[name]
    found = decoded(data).pixels.astype(np.float64)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1


def colours(pixels: np.ndarray) -> np.ndarray:
    """What OpenCV decodes, as RGB of 8 bits."""
    eight = pixels >> 8 if pixels.dtype == np.uint16 else pixels
    return (grey(eight) if eight.ndim == 2 else eight[..., 2::-1]).astype(int)


SEEN = ("png-rgb-16", "png-grey-16", "tiff-tiled-16", "tiff-rgb-16-deflate", "tiff-rgb-16-lzw", "tiff-grey-16")
"""What OpenCV is right about: planes of 16 bits it mixes up."""


@pytest.mark.parametrize("name", [*SEEN, "png-rgb", "bmp", "webp", "tiff-planar", "ppm", "ppm-16-bit", "jpeg-2000"])
def test_opencv_sees_the_same(name):
    seen = cv2.imdecode(np.frombuffer(EXACT[name][0], np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.abs(decoded(EXACT[name][0]).pixels - colours(seen)).max() <= 1


LOSSY = {
    "jpeg": saved(RGB, "JPEG"),
    "jpeg-grey": saved(GREY, "JPEG"),
    "jpeg-progressive": saved(RGB, "JPEG", progressive=True),
    "jpeg-subsampled": saved(RGB, "JPEG", subsampling=2),
    "jpeg-by-opencv": by_opencv(".jpg", RGB),
    "jpeg-cmyk": saved(PHOTOGRAPH.convert("CMYK"), "JPEG"),
    "mpo": saved(PHOTOGRAPH, "MPO", save_all=True, append_images=[PHOTOGRAPH.rotate(180)]),
    "webp-lossy": saved(RGB, "WEBP"),
    "avif-lossy": saved(RGB, "AVIF"),
    "jpeg-2000-lossy": saved(RGB, "JPEG2000", quality_mode="rates", quality_layers=[10]),
    "png-palette": saved(PHOTOGRAPH.quantize(64), "PNG"),
    "png-palette-4-bit": saved(PHOTOGRAPH.quantize(16), "PNG", bits=4),
    "gif-colours": saved(PHOTOGRAPH.quantize(256), "GIF"),
    "bmp-palette": saved(PHOTOGRAPH.quantize(256), "BMP"),
    "tiff-palette": saved(PHOTOGRAPH.quantize(256), "TIFF"),
    "tiff-cmyk": saved(PHOTOGRAPH.convert("CMYK"), "TIFF"),
    "tiff-cmyk-lzw": saved(PHOTOGRAPH.convert("CMYK"), "TIFF", compression="tiff_lzw"),
    "tiff-jpeg": saved(RGB, "TIFF", compression="jpeg"),
    "tiff-ycbcr": saved(PHOTOGRAPH.convert("YCbCr"), "TIFF"),
    "tiff-lab": saved(PHOTOGRAPH.convert("LAB"), "TIFF"),
}


@pytest.mark.parametrize("name", LOSSY)
def test_pixels_are_those_that_pillow_sees(name):
    with Image.open(io.BytesIO(LOSSY[name])) as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(decoded(LOSSY[name]).pixels - expected).max() <= 1


@pytest.mark.parametrize("name", ["jpeg", "jpeg-grey", "jpeg-progressive", "webp-lossy", "png-palette", "bmp-palette"])
def test_pixels_are_those_that_opencv_sees(name):
    seen = cv2.imdecode(np.frombuffer(LOSSY[name], np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.abs(decoded(LOSSY[name]).pixels - seen.astype(int)).max() <= 1


@pytest.mark.parametrize("name", ["jpeg", "png-palette", "gif-colours", "tiff-jpeg"])
def test_pixels_are_those_that_imageio_sees(name):
    seen = imageio.imread(LOSSY[name], index=0)
    assert np.abs(decoded(LOSSY[name]).pixels - seen[..., :3].astype(int)).max() <= 1


def test_cmyk_of_16_bits_in_planes_is_read():
    cmyk = np.asarray(PHOTOGRAPH.convert("CMYK"))
    expected = np.asarray(PHOTOGRAPH.convert("CMYK").convert("RGB")).astype(int)
    planes = (cmyk.astype(np.uint16) * 257).transpose(2, 0, 1)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, planes, photometric="separated", planarconfig="separate", metadata=None)
    assert np.abs(decoded(buffer.getvalue()).pixels - expected).max() <= 1


@pytest.mark.parametrize("colours", [1, 3])
def test_png_that_says_its_bits_uses_the_whole_range(colours):
    values = (np.arange(64, dtype=np.uint16) * 64).repeat(colours)
    chunks = ((b"tEXt", b"Comment\0sBIT"), (b"sBIT", bytes([12] * colours)))
    row = [values.astype(">u2").tobytes()]
    kind = {1: 0, 3: 2}[colours]
    told, plain = (png(64, 1, 16, kind, row, *some) for some in (chunks, chunks[:1]))
    assert (decoded(told).pixels[0, :, 0] == values[::colours] >> 8).all()
    assert any("taken for 12 bits" in note for note in decoded(plain).notes)
