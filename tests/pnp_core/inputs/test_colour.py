"""Embedded colour profiles: of RGB, grey and inks, damaged ones, and those for other pictures."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.images import PHOTOGRAPH, RGB, decoded, off, saved, tiff


@pytest.fixture
def wild(shared_data):
    return shared_data / "wild"


def test_colours_are_brought_to_srgb(wild):
    data = (wild / "icc-profile/icc_swapped_rgb.jpg").read_bytes()
    found = decoded(data)
    with Image.open(io.BytesIO(data)) as image:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        expected = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
        assert expected is not None
        assert off(found.pixels, np.asarray(expected)) <= 1
        assert off(found.pixels, np.asarray(image)) > 50
    assert found.notes == ("colours converted to sRGB by the embedded profile",)


def test_srgb_profile_changes_nothing():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    found = decoded(saved(PHOTOGRAPH, "PNG", icc_profile=profile))
    assert off(found.pixels, RGB) == 0
    assert found.notes == ()


def test_profile_for_other_pictures_is_not_used_and_said():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB", 5000)).tobytes()
    found = decoded(saved(PHOTOGRAPH, "PNG", icc_profile=profile))
    assert found.notes == ("embedded colour profile ignored: it is for Lab pictures",)
    assert off(found.pixels, RGB) == 0


def test_damaged_profile_costs_a_note_and_no_picture():
    found = decoded(saved(PHOTOGRAPH, "JPEG", icc_profile=b"no profile"))
    assert found.notes[0].startswith("embedded colour profile ignored: ")


def test_colours_under_opacity_are_brought_to_srgb_too(wild):
    with Image.open(wild / "icc-profile/icc_swapped_rgb.jpg") as image:
        profile, opaque = image.info["icc_profile"], image.convert("RGB")
    clear = opaque.convert("RGBA")
    clear.putpixel((0, 0), (0, 0, 0, 0))
    expected = decoded(saved(opaque, "PNG", icc_profile=profile)).pixels
    found = decoded(saved(clear, "PNG", icc_profile=profile))
    assert found.pixels[0, 0].tolist() == [255, 255, 255]
    assert off(found.pixels[1:], expected[1:]) <= 1


def icc(kind: bytes, space: bytes, between: bytes, parts: dict[bytes, bytes]) -> bytes:
    """An ICC profile of version 2 by its parts."""
    white = struct.pack(">3i", 63190, 65536, 54061)
    parts = {b"wtpt": b"XYZ \0\0\0\0" + white, **parts}
    start = 128 + 4 + 12 * len(parts)
    table, body = struct.pack(">I", len(parts)), b""
    for name, part in parts.items():
        table += name + struct.pack(">II", start + len(body), len(part))
        body += part.ljust(-(-len(part) // 4) * 4, b"\0")
    head = struct.pack(">IIII", start + len(body), 0, 0x02100000, int.from_bytes(kind, "big")) + space + between
    return (head.ljust(36, b"\0") + b"acsp" + bytes(28) + white).ljust(128, b"\0") + table + body


def grey_profile() -> bytes:
    """An ICC profile for grey values that are linear in light."""
    return icc(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": b"curv\0\0\0\0" + struct.pack(">IHH", 1, 256, 0)})


INKS = {(255, 0, 0, 0): (54, 81, 70), (0, 255, 0, 0): (88, -79, 81), (0, 0, 255, 0): (30, 68, -112)}
"""Inks of a press that prints red, green and blue where cyan, magenta and yellow are usual; in Lab."""


def cmyk_profile() -> bytes:
    """An ICC profile of that press: paper is white, two inks or black give black."""
    nodes = [tuple(255 * (node >> bit & 1) for bit in (3, 2, 1, 0)) for node in range(16)]
    colours = [INKS.get(node, (0, 0, 0) if any(node) else (100, 0, 0)) for node in nodes]
    table = bytes(value for light, a, b in colours for value in (round(light * 2.55), a + 128, b + 128))
    matrix, straight = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9))), bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + matrix + straight * 4 + table + straight * 3
    return icc(b"prtr", b"CMYK", b"Lab ", {b"A2B0": lut})


@pytest.mark.parametrize("name", ["JPEG", "TIFF"])
def test_inks_are_brought_to_srgb_by_a_profile_for_them(name):
    inks = np.zeros((40, 80, 4), np.uint8)
    for i, ink in enumerate([*INKS, (0, 0, 0, 255), (0, 0, 0, 0)]):
        inks[:, 16 * i : 16 * i + 16] = ink
    how = {"quality": 100, "subsampling": 0} if name == "JPEG" else {}
    found = decoded(saved(Image.fromarray(inks, "CMYK"), name, icc_profile=cmyk_profile(), **how))
    assert found.notes == ("colours converted to sRGB by the embedded profile",)
    seen = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255)]
    assert off(found.pixels[20, 8::16], np.array(seen)) <= 10  # Lab of 8 bits is coarse
    plain = decoded(saved(Image.fromarray(inks, "CMYK"), name, **how))
    assert off(plain.pixels[20, 8], np.array((0, 255, 255))) <= 6


def test_inks_with_a_damaged_profile_are_read_without_it_and_that_is_said():
    inks = PHOTOGRAPH.convert("CMYK")
    found = decoded(saved(inks, "JPEG", icc_profile=cmyk_profile()[:400]))
    assert found.notes[0].startswith("embedded colour profile ignored: ")
    assert off(found.pixels, decoded(saved(inks, "JPEG")).pixels) == 0


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_is_brought_to_srgb_by_a_profile_for_grey(mode):
    ramp = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
    image = Image.fromarray(ramp.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(ramp).convert(mode)
    found = decoded(saved(image, "PNG", icc_profile=grey_profile()))
    light = ramp / 255
    expected = 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert off(found.pixels[:, 16:, 0], expected[:, 16:]) <= 1  # LittleCMS is coarse next to black
    assert "colours converted to sRGB by the embedded profile" in found.notes
    wrong = decoded(saved(PHOTOGRAPH, "PNG", icc_profile=grey_profile()))
    assert wrong.notes == ("embedded colour profile ignored: it is for GRAY pictures, not RGB",)


def test_profile_in_a_tiff_of_16_bits_is_used(wild):
    with Image.open(wild / "icc-profile/icc_swapped_rgb.jpg") as image:
        profile, stored = image.info["icc_profile"], np.asarray(image.convert("RGB"))
        expected = decoded(saved(image.convert("RGB"), "PNG", icc_profile=profile)).pixels
    data = tiff((stored.astype(np.uint16) * 257, {"iccprofile": profile}))
    assert off(decoded(data).pixels, expected) <= 1
