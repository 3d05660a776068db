"""Proposals that overlap as pieces, and what is cut out of a picture."""

import numpy as np
import pytest

from pnp_core.methods.classify.pieces import apart, cut_out, overlapping


def boxed(size, *box):
    mask = np.zeros(size, dtype=bool)
    mask[box[0] : box[2], box[1] : box[3]] = True
    return mask


def test_pieces_of_overlapping_proposals_by_hand():
    size = (4, 4)
    first, second, inside = boxed(size, 0, 0, 2, 4), boxed(size, 1, 2, 4, 4), boxed(size, 0, 0, 1, 1)
    pieces = overlapping([first, second, inside], size, 0)
    assert pieces.boxes == ((0, 0, 2, 4), (1, 2, 4, 4), (0, 0, 1, 1))
    for number, mask in enumerate((first, second, inside)):
        assert (pieces.mask(number, (0, 0, 4, 4)) == mask).all()
    holders = {tuple(n for n, held in enumerate(pieces.held) if piece in held) for piece in np.unique(pieces.ids)}
    assert holders == {(), (0,), (0, 1), (1,), (0, 2)}
    assert pieces.ids[3, 0] == 0


@pytest.mark.parametrize("seed", range(4))
def test_every_proposal_is_whole_whatever_overlaps(seed):
    draw = np.random.default_rng(seed)
    masks = [boxed((12, 15), *np.sort(draw.integers(0, 13, (2, 2)), axis=0).ravel()) for _ in range(9)]
    kept = [mask for mask in masks if mask.any()]
    pieces = overlapping(masks, (12, 15), 0)
    assert len(pieces.boxes) == len(kept)
    for number, mask in enumerate(kept):
        assert (pieces.mask(number, (0, 0, 12, 15)) == mask).all()


def test_small_ones_are_no_proposals():
    ids = np.zeros((10, 10), dtype=np.int32)
    ids[0, :2], ids[2:4, 2:7] = 1, 2
    pieces = apart(ids, 0.05)
    assert (pieces.boxes, pieces.held) == (((2, 2, 4, 7),), ((1,),))
    assert (pieces.ids == (ids == 2)).all()
    assert overlapping([ids == 1, ids == 2], (10, 10), 0.05).boxes == ((2, 2, 4, 7),)


def test_the_square_may_leave_the_picture_and_keeps_proportions():
    image = np.full((8, 20, 3), 200, dtype=np.uint8)
    pieces = overlapping([boxed((8, 20), 2, 4, 6, 20)], (8, 20), 0)
    pixels, region = cut_out(image, pieces, 0, 1, 16)
    assert (pixels.shape, region.shape) == ((16, 16, 3), (16, 16))
    expected = boxed((16, 16), 6, 0, 10, 16)  # 16 columns of a box of 4 rows, in the middle of the square
    assert (region == expected).all()
    assert (pixels[expected] == 200).all()
    wide = cut_out(image, pieces, 0, 2, 16)[1]
    assert wide.sum() == 4 // 2 * 8


def test_a_line_of_one_pixel_is_still_seen():
    pieces = overlapping([boxed((400, 400), 0, 7, 400, 8)], (400, 400), 0)
    assert cut_out(np.zeros((400, 400, 3), np.uint8), pieces, 0, 1, 16)[1].any()
