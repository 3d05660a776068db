import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import gaussian_filter1d

from pnp_core.config import EvalConfig
from pnp_core.data import ClassMaps
from pnp_core.errors import MethodError
from pnp_core.masks.config import CrfConfig, MaskConfig
from pnp_core.masks.grids import blur_matrix, grid_places, min_max, resize_matrix
from pnp_core.masks.label_map import LabelMap, Scores, make_label_maps, wants_background
from pnp_core.masks.refine import open_refiner
from pnp_core.methods.pnp.channels import channels, make_label_map, sum_iterations, threshold
from pnp_core.methods.pnp.config import PnpConfig

METHOD = PnpConfig()
OFF = CrfConfig(name="off")
BLACK = np.zeros((4, 4, 3), dtype=np.uint8)


def salience(maps, classes, size=4) -> ClassMaps:
    maps = np.array(maps, dtype=np.float32)
    return ClassMaps(maps, tuple(classes), np.zeros(len(classes), dtype=np.float32), size, size)


def label_map(maps: ClassMaps, image: np.ndarray, masks: MaskConfig, method: PnpConfig = METHOD) -> LabelMap:
    return make_label_map(maps, image, masks, method, "cpu")


def test_picture_without_candidates_is_all_background():
    found = label_map(salience(np.zeros((2, 0, 3, 3)), ()), BLACK, MaskConfig(background="always"))
    assert (found.labels.tolist(), found.confidence.tolist()) == ([[0] * 4] * 4, [[1.0] * 4] * 4)


def test_authors_sum_counts_the_first_map_twice():
    maps = np.array([[[[1.0]]], [[[10.0]]], [[[100.0]]]])
    assert sum_iterations(maps, "plain").item() == 111
    assert sum_iterations(maps, "first_twice").item() == 112


def test_min_max_scales_each_map_alone():
    maps = np.array([[[2.0, 4], [6, 4]], [[0, 0], [10, 5]]])
    assert min_max(maps).tolist() == [[[0, 0.5], [1, 0.5]], [[0, 0], [1, 0.5]]]


def test_constant_map_becomes_zero_not_nan():
    assert min_max(np.full((1, 2, 2), 3.0)).tolist() == [[[0, 0], [0, 0]]]


def test_threshold_looks_at_the_min_max_and_keeps_the_raw_value():
    maps = np.array([[[10.0, 11.4], [11.6, 20.0]]])
    assert threshold(maps, 0.15).tolist() == [[[0, 0], [11.6, 20.0]]]


def test_salience_at_the_threshold_is_cut_and_kept_in_the_authors_preset():
    maps = np.array([[[0.0, 2], [4, 8]]])
    assert threshold(maps, 0.25).tolist() == [[[0, 0], [4, 8]]]
    assert threshold(maps, 0.25, "keep").tolist() == [[[0, 2], [4, 8]]]
    masks = EvalConfig.model_validate({"preset": "authors", "out": "x"}).masks
    config = masks.model_copy(update={"threshold": 0.25, "blur": 0, "crf": OFF, "background": "always"})
    edge = salience([[[[0, 2], [4, 8]]]], [7], size=2)
    found = label_map(edge, BLACK[:2, :2], config)
    assert (found.labels[0, 1], found.confidence[0, 1]) == (7, pytest.approx(1 / (1 + np.exp(-0.25))))
    cut = label_map(edge, BLACK[:2, :2], config.model_copy(update={"ties": "cut"}))
    assert cut.labels[0, 1] == 0


@given(arrays(np.float32, (5, 7), elements=st.floats(0, 1, width=32)), st.integers(1, 30), st.integers(1, 30))
def test_resize_equals_bilinear_interpolation_with_aligned_corners(values, height, width):
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None], (height, width), mode="bilinear", align_corners=True
    )[0, 0].numpy()
    found = resize_matrix(height, 5) @ values @ resize_matrix(width, 7).T
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_pixel_on_a_grid_line_takes_from_it_alone_at_every_grid_and_size():
    grids = np.arange(4, 65)[:, None]
    for size in range(1, 2049):
        steps = max(size - 1, 1)
        line, share = grid_places(size, grids)
        exact = np.arange(size) * (grids - 1)  # places on the grid, in parts of 1 / steps
        assert np.array_equal(line * steps + np.rint(share * steps), exact), size
        assert np.array_equal(share == 0, exact % steps == 0), size
        assert share.max() < 1, size


@pytest.mark.parametrize(("size", "grid"), [(213, 21), (425, 21), (540, 12), (246, 6), (1, 5), (7, 1), (2, 2)])
def test_rows_of_the_resize_matrix_on_a_grid_line_are_ones_and_zeros(size, grid):
    matrix, steps = resize_matrix(size, grid), max(size - 1, 1)
    for row, place in zip(matrix, np.arange(size) * (grid - 1), strict=True):
        assert np.count_nonzero(row) == (1 if place % steps == 0 else 2)
        assert row[place // steps] == np.float32((steps - place % steps) / steps)


def test_background_reaches_to_the_grid_line_itself():
    maps = np.zeros((1, 21, 21))
    maps[0, 16:] = 5.0  # the line before, without salience, lies on pixel 15 * 424 / 20
    found = channels(maps, 425, 425, background=True, sigma=0.0)
    assert found[0][:319].min() == 1
    assert found[0][319:].max() == 0


@given(arrays(np.float64, 23, elements=st.floats(0, 1)), st.floats(0.3, 40))
def test_blur_equals_scipys_gaussian_filter(values, sigma):
    expected = gaussian_filter1d(values, sigma, mode="reflect", truncate=4.0)
    np.testing.assert_allclose(blur_matrix(23, sigma) @ values, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("rule", "classes", "expected"),
    [("always", 9, True), ("few", 1, True), ("few", 2, True), ("few", 3, False), ("never", 1, False)],
)
def test_background_rule(rule, classes, expected):
    assert wants_background(rule, classes) is expected


def test_background_is_one_exactly_where_every_class_is_zero():
    maps = np.zeros((2, 2, 2))
    maps[0, 0, 0] = 5.0
    found = channels(maps, 3, 3, background=True, sigma=0.0)
    # Resized, class 0 is positive in the upper left 2 x 2; class 1 nowhere.
    assert found[0].tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 1]]
    assert found[1].tolist() == [[1, 0.5, 0], [0.5, 0.25, 0], [0, 0, 0]]
    assert found[2].tolist() == [[0, 0, 0]] * 3


def test_every_channel_is_blurred_and_scaled_again():
    maps = np.zeros((1, 4, 4))
    maps[0, 0, 0] = 3.0
    found = channels(maps, 16, 16, background=True, sigma=2.0)
    assert found.min(axis=(1, 2)).tolist() == [0, 0]
    assert found.max(axis=(1, 2)).tolist() == pytest.approx([1, 1])
    assert 0 < found[0, 5, 5] < 1


def test_label_map_takes_the_strongest_channel_and_its_class_id():
    maps = [[[[9, 0], [0, 0]], [[0, 0], [0, 9]]]]
    config = MaskConfig(background="never", blur=0, crf=OFF)
    # Ids out of order: renumbering in place would turn class 1 into 2 and then into 150.
    found = label_map(salience(maps, [150, 1]), BLACK, config)
    assert found.labels[0, 0] == 150
    assert found.labels[3, 3] == 1
    assert set(np.unique(found.labels)) == {1, 150}


def test_background_pixels_are_zero():
    maps = [[[[9, 0], [0, 0]]]]
    found = label_map(salience(maps, [7]), BLACK, MaskConfig(background="always", blur=0, crf=OFF))
    assert found.labels[0, 0] == 7
    assert found.labels[3, 3] == 0


def test_mean_salience_is_of_the_summed_raw_maps():
    maps = [[[[4, 0], [0, 0]]], [[[0, 8], [0, 0]]]]
    config = MaskConfig(background="always", blur=0, crf=OFF)
    assert label_map(salience(maps, [7]), BLACK, config).salience.tolist() == [3.0]
    twice = PnpConfig(sum="first_twice")
    assert label_map(salience(maps, [7]), BLACK, config, twice).salience.tolist() == [4.0]


def test_confidence_is_the_winning_probability():
    maps = [[[[9, 0], [0, 0]]]]
    found = label_map(salience(maps, [7]), BLACK, MaskConfig(background="always", blur=0, crf=OFF))
    # Channels (background, class) are (0, 1) in the first corner: e / (e + 1).
    assert found.confidence[0, 0] == pytest.approx(np.e / (np.e + 1))


def test_picture_without_any_salience_is_background():
    found = label_map(salience(np.zeros((1, 2, 2, 2)), [3, 5]), BLACK, MaskConfig(background="always"))
    assert not found.labels.any()
    assert np.isfinite(found.confidence).all()


def test_large_picture_is_refined_smaller_and_comes_back_at_its_own_size():
    maps = np.zeros((1, 1, 4, 4), dtype=np.float32)
    maps[..., :2] = 1
    record = ClassMaps(maps, (7,), np.zeros(1, dtype=np.float32), 90, 300)
    image = np.zeros((90, 300, 3), dtype=np.uint8)
    config = MaskConfig(background="always", blur=0.0, crf=OFF, max_side=100)
    found = label_map(record, image, config)
    full = label_map(record, image, config.model_copy(update={"max_side": 300}))
    assert found.labels.shape == found.confidence.shape == (90, 300)
    assert (found.labels == full.labels).mean() > 0.97


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 400)])
@pytest.mark.parametrize("crf", ["off", "dense"])
def test_odd_picture_sizes_give_masks_of_that_size(size, crf):
    maps = np.random.default_rng(0).random((2, 3, 4, 4)).astype(np.float32)
    record = ClassMaps(maps, (1, 2, 3), np.zeros(3, dtype=np.float32), *size)
    image = np.zeros((*size, 3), dtype=np.uint8)
    found = label_map(record, image, MaskConfig(background="always", crf=CrfConfig(name=crf)))
    assert found.labels.shape == size


@pytest.mark.parametrize(
    "scores",
    [
        Scores(np.zeros((2, 3, 4), np.float32), (0, 7), np.ones(1)),
        Scores(np.zeros((2, 4, 4), np.float32), (0, 7, 8), np.ones(1)),
        Scores(np.zeros((2, 4, 4), np.float32), (0, 7), np.ones(2)),
        Scores(np.zeros((0, 4, 4), np.float32), (), np.ones(1)),
    ],
    ids=["another size", "too few channels", "too many classes", "nothing"],
)
def test_scores_that_do_not_fit_are_refused(scores):
    maps = salience([[[[9, 0], [0, 0]]]], [7])
    with pytest.raises(MethodError, match="do not fit the image and the classes asked"):
        make_label_maps([maps], [BLACK], lambda *_: scores, open_refiner(OFF, "cpu"), 100)
