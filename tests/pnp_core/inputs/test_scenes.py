import numpy as np
import pytest

from pnp_core.errors import UnknownNameError
from pnp_core.inputs.cards import load_card
from pnp_core.inputs.images import decode_image, decode_label_map
from pnp_core.inputs.readers import open_dataset
from pnp_core.inputs.scenes import drawing
from pnp_core.inputs.scenes.shapes import CLASS_NAMES


def test_card_lists_the_drawn_classes_in_order():
    assert load_card("scenes").names == CLASS_NAMES
    assert len(CLASS_NAMES) >= 20


def test_unknown_dataset_and_split_name_those_there_are():
    with pytest.raises(UnknownNameError, match="unknown dataset 'scene'; did you mean 'scenes'"):
        load_card("scene")
    with pytest.raises(UnknownNameError, match="unknown split of dataset scenes 'tset'; did you mean 'test'"):
        open_dataset(load_card("scenes"), None, "tset")


def test_scene_follows_from_split_and_index_alone():
    a, b = drawing.render(drawing.make_scene("test", 5)), drawing.render(drawing.make_scene("test", 5))
    assert np.array_equal(a[0], b[0])
    assert np.array_equal(a[1], b[1])
    assert not np.array_equal(a[0], drawing.render(drawing.make_scene("train", 5))[0])
    assert not np.array_equal(a[0], drawing.render(drawing.make_scene("test", 6))[0])


def test_mask_holds_exactly_the_classes_of_the_scene():
    for index in range(20):
        scene = drawing.make_scene("validation", index)
        image, labels = drawing.render(scene)
        assert image.shape == (192, 192, 3)
        assert set(np.unique(labels)) - {0} == set(scene.class_ids)
        assert 1 <= len(scene.objects) <= 4


@pytest.mark.parametrize("class_id", range(1, 21))
def test_mask_is_exact_where_an_object_is_drawn(class_id):
    """Without texture, a pixel differs from the bare ground if and only if the mask says so."""
    obj = drawing.SceneObject(class_id, 0.5, 0.5, 0.35, hue=0.5)
    with_object, labels = drawing.render(drawing.Scene((obj,), background_seed=3))
    ground, _ = drawing.render(drawing.Scene((), background_seed=3))
    differs = np.abs(with_object.astype(int) - ground.astype(int)).max(axis=2) > 60
    inside = labels == class_id
    # Anti-aliased outlines blur the border by a pixel; the noise is far below 60.
    assert inside.sum() > 1500
    wrong = differs & ~inside
    border = np.zeros_like(inside)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            border |= np.roll(inside, (dy, dx), (0, 1))
    assert not (wrong & ~border).any()


def test_swapped_hues_keep_shapes_and_exchange_colours():
    objects = (
        drawing.SceneObject(1, 0.3, 0.5, 0.2, hue=drawing.group_hue(1)),
        drawing.SceneObject(13, 0.7, 0.5, 0.2, hue=drawing.group_hue(13)),
    )
    swapped = drawing.swap_hues(drawing.Scene(objects))
    assert [o.class_id for o in swapped.objects] == [1, 13]
    assert [o.hue for o in swapped.objects] == [drawing.group_hue(13), drawing.group_hue(1)]
    assert np.array_equal(drawing.render(swapped)[1], drawing.render(drawing.Scene(objects))[1])


def test_reader_gives_pictures_masks_and_labels():
    sample = next(open_dataset(load_card("scenes"), None, "test").samples())
    scene = drawing.make_scene("test", 0)
    image, labels = drawing.render(scene)
    assert np.array_equal(decode_image(sample.image, 10**8).pixels, image)
    assert np.array_equal(decode_label_map(sample.label_map), labels)
    assert sample.classes == scene.class_ids


def test_splits_share_no_scene():
    seen = {drawing.render(drawing.make_scene(s, i))[0].tobytes() for s in drawing.SPLIT_SEEDS for i in range(5)}
    assert len(seen) == 15
