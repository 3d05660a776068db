"""The drawn scenes as a dataset."""

import io

import numpy as np
from PIL import Image

from pnp_core.inputs.cards import load_card
from pnp_core.inputs.readers import open_dataset
from tests.pnp_core.inputs.readers.copies import labels_of


def test_scenes_keep_their_classes_in_a_subset():
    card = load_card("scenes")
    dataset = open_dataset(card, None, "test", only=(1, 2))
    samples = [sample for _, sample in zip(range(5), dataset.samples(), strict=False)]
    assert len(dataset) == 200
    for sample in samples:
        assert set(np.unique(labels_of(sample))) <= {0, 1, 2}
        assert set(sample.classes or ()) <= {1, 2}
        Image.open(io.BytesIO(sample.image)).verify()


def test_scenes_without_masks_get_them_later():
    dataset = open_dataset(load_card("scenes"), None, "test", truth=False).restricted({"test_00003"})
    (bare,), (sample,) = dataset.samples(), dataset.with_truth().samples()
    assert bare.label_map is None
    assert (sample.image, sample.classes) == (bare.image, bare.classes)
    assert labels_of(sample).any()
    assert dataset.unlisted() == []
