"""Visual prompts against OpenCV, which the released code draws them with."""

import cv2
import numpy as np
import pytest

from pnp_core.methods.car.visual_prompts import around, blurred, ellipse_around, grey, shown


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (40, 61, 3), dtype=np.uint8)


@pytest.fixture
def inside():
    found = np.zeros((40, 61), dtype=bool)
    found[5:20, 12:50] = True
    return found


@pytest.mark.parametrize("size", [(40, 61), (8, 100), (3, 5)])
def test_blurred_and_grey_are_opencvs_to_the_byte(size, image):
    image = np.resize(image, (*size, 3))
    np.testing.assert_array_equal(blurred(image), cv2.GaussianBlur(image, (15, 15), 0))
    np.testing.assert_array_equal(grey(image)[..., 1], cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))


def test_a_picture_of_one_row_is_blurred_along_it():
    assert blurred(np.full((1, 9, 3), 100, np.uint8)).tolist() == np.full((1, 9, 3), 100).tolist()


def test_outside_is_grey_of_what_is_blurred(image, inside):
    outside = around(image, ("gray", "blur"))
    np.testing.assert_array_equal(outside, grey(blurred(image)))
    made = shown(image, outside, inside, ("gray", "blur"))
    np.testing.assert_array_equal(made[inside], image[inside])
    np.testing.assert_array_equal(made[~inside], outside[~inside])
    np.testing.assert_array_equal(around(image, ("circle",)), image)


def test_the_ellipse_is_red_and_one_pixel_wide(image, inside):
    made = shown(image, image, inside, ("circle",))
    changed = (made != image).any(-1)
    assert (made[changed] == (255, 0, 0)).all()
    # Rows 5 to 19 and columns 12 to 49: the middle is (12, 30), its halves 7 and 19.
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 19, 11, 49)


def test_ellipses_lie_where_opencv_draws_them():
    random, line, apart = np.random.default_rng(1), 0, 0
    for _ in range(50):
        top, left = random.integers(0, 300), random.integers(0, 400)
        inside = np.zeros((375, 500), dtype=bool)
        inside[top : top + random.integers(1, 300), left : left + random.integers(1, 300)] = True
        rows, columns = np.nonzero(inside)
        middle, half = (int(columns.mean()), int(rows.mean())), (np.ptp(columns) + 1) // 2
        expected = np.zeros(inside.shape, np.uint8)
        cv2.ellipse(expected, middle, (int(half), int((np.ptp(rows) + 1) // 2)), 0, 0, 360, 1, 1)
        line, apart = line + (expected > 0).sum(), apart + ((expected > 0) & ~ellipse_around(inside)).sum()
    assert apart < 0.06 * line
