import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import coo_array

from pnp_core.metrics import ConfusionMatrix

TRUTH = np.array([[0, 0, 1], [1, 2, 255]], dtype=np.uint8)
PREDICTION = np.array([[0, 1, 1], [1, 0, 3]], dtype=np.uint8)


def test_counts_by_hand_and_leaves_void_out():
    matrix = ConfusionMatrix.of(TRUTH, PREDICTION, 4)
    assert matrix.counts.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    # IoU: background 1 / 3, class 1 2 / 3, class 2 0 / 1, class 3 nowhere.
    np.testing.assert_allclose(matrix.iou()[:3], [1 / 3, 2 / 3, 0])
    assert np.isnan(matrix.iou()[3])
    assert matrix.mean_iou() == pytest.approx(1 / 3)
    assert matrix.pixel_accuracy() == pytest.approx(3 / 5)


def test_void_as_background_counts_void_as_label_zero():
    matrix = ConfusionMatrix.of(TRUTH, PREDICTION, 4, void_as_background=True)
    assert matrix.counts[0].tolist() == [1, 1, 0, 1]


def test_predicted_but_absent_class_enters_only_the_union_mean():
    matrix = ConfusionMatrix.of(TRUTH, PREDICTION, 4, void_as_background=True)
    # IoUs: 1/4, 2/3, 0 and, absent from the truth, 0.
    assert matrix.mean_iou("present") == pytest.approx((1 / 4 + 2 / 3 + 0) / 3)
    assert matrix.mean_iou("union") == pytest.approx((1 / 4 + 2 / 3 + 0 + 0) / 4)


def test_nothing_counted_is_nan_not_zero():
    assert np.isnan(ConfusionMatrix.zeros(3).mean_iou())
    assert np.isnan(ConfusionMatrix.zeros(3).pixel_accuracy())


LABELS = arrays(np.uint8, (6, 5), elements=st.sampled_from([0, 1, 2, 3, 4, 255]))
CLASSES = arrays(np.uint8, (6, 5), elements=st.integers(0, 4))


@given(LABELS, CLASSES, LABELS, CLASSES)
def test_matrix_of_all_equals_sum_of_parts(truth, prediction, truth2, prediction2):
    parts = ConfusionMatrix.of(truth, prediction, 5) + ConfusionMatrix.of(truth2, prediction2, 5)
    whole = ConfusionMatrix.of(np.vstack([truth, truth2]), np.vstack([prediction, prediction2]), 5)
    assert np.array_equal(parts.counts, whole.counts)


@given(LABELS, CLASSES)
def test_iou_equals_set_arithmetic(truth, prediction):
    matrix = ConfusionMatrix.of(truth, prediction, 5)
    kept = truth != 255
    for c in range(5):
        a, b = (truth == c) & kept, (prediction == c) & kept
        union = (a | b).sum()
        expected = (a & b).sum() / union if union else np.nan
        np.testing.assert_equal(matrix.iou()[c], expected)


def test_sizes_that_differ_are_refused():
    with pytest.raises(ValueError, match="sizes must be equal"):
        ConfusionMatrix.of(TRUTH, PREDICTION[:1], 4)


def test_label_out_of_range_is_refused():
    with pytest.raises(ValueError, match="prediction has label 3"):
        ConfusionMatrix.of(np.zeros((2, 3), np.uint8), PREDICTION, 3)


@given(LABELS, CLASSES, st.booleans())
def test_every_count_equals_that_of_an_independent_implementation(truth, prediction, void_as_background):
    """Sparse accumulation by scipy, pixel by pixel pairs; void left out or counted as background."""
    pairs = [(int(t), int(p)) for t, p in zip(truth.ravel(), prediction.ravel(), strict=True)]
    kept = [(0 if t == 255 else t, p) for t, p in pairs if t != 255 or void_as_background]
    rows, columns = [t for t, _ in kept], [p for _, p in kept]
    expected = coo_array((np.ones(len(kept), dtype=np.int64), (rows, columns)), shape=(5, 5)).toarray()
    assert np.array_equal(ConfusionMatrix.of(truth, prediction, 5, void_as_background).counts, expected)


def test_mean_over_a_subset_leaves_the_other_classes_out():
    matrix = ConfusionMatrix.of(TRUTH, PREDICTION, 4)
    assert matrix.mean_iou("present", [1, 2]) == pytest.approx((2 / 3 + 0) / 2)
    assert matrix.mean_iou("present", [0]) == pytest.approx(1 / 3)
    assert matrix.averaged("union", [1, 3]).tolist() == [False, True, False, False]
