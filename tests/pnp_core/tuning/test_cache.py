"""The tuning cache: the maps of all (layer, head) pairs of one pass, read slice by slice."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pnp_core.data import ClassMaps, ShardRef
from pnp_core.errors import DamagedError, LayerRangeError
from pnp_core.inputs.images import decode_image
from pnp_core.methods.pnp.channels import make_label_map
from pnp_core.methods.pnp.loaded import model_pixels
from pnp_core.methods.pnp.prompts import build_prompts, stack_prompts
from pnp_core.methods.pnp.salience import salience
from pnp_core.storage.completion import _VERIFIED, tensor_of
from pnp_core.storage.run_folder import RunFolder
from pnp_core.storage.shards import read_shard
from pnp_core.tuning.cache import (
    cache_images,
    cache_maps,
    pair_name,
    read_images,
    read_maps,
    read_pixels,
    relative_to_peak,
)
from pnp_core.tuning.config import TuneConfig
from pnp_core.tuning.plan import TunePlan, plan_tune, shard_tuning


def plan_of(out: Path, random_blip: Path, kind: str = "gradcam", **options) -> TunePlan:
    backbone = {"checkpoint": str(random_blip), "image_size": 48, "heads": 2}
    values = {"out": str(out), "preset": "tiny", "images": 5, "images_per_shard": 3}
    salience = {"backbone": backbone, "kind": kind}
    return plan_tune(TuneConfig.model_validate({**values, "salience": salience, **options}))


@pytest.fixture(scope="module")
def cached(tmp_path_factory, random_blip) -> tuple[TunePlan, list[ShardRef]]:
    plan = plan_of(tmp_path_factory.mktemp("cache"), random_blip)
    shards = shard_tuning(plan.config)
    for shard in shards:
        cache_images(plan.images, shard, cache_maps(plan.maps, shard))
    return plan, shards


def test_every_slice_is_the_single_pass_of_its_layer_and_head(cached):
    plan, shards = cached
    backbone = plan.maps.load().backbone
    for shard in shards:
        images = {image.key: image for image in read_images(plan.maps, shard.name)}
        samples = list(read_shard(plan.run, shard))
        assert list(images) == [sample.key for sample in samples]
        for sample in samples:
            image = images[sample.key]
            assert image.classes == sample.classes
            names = [plan.card.captions[label - 1] for label in image.classes]
            prompts = stack_prompts([build_prompts(names, plan.config.method.caption, backbone)])
            tokens = backbone.encode_image(model_pixels(decode_image(sample.image, 10**6).pixels, (48, 48))[None])
            for layer in (0, 1):
                for head in (0, 1):
                    single = salience(backbone, tokens, prompts, layer, head).maps[0].unflatten(-1, backbone.grid)
                    expected = (single / single.amax((1, 2), keepdim=True)).nan_to_num()  # a map may be all zero
                    found = torch.from_numpy(read_maps(plan.maps, shard.name, layer, head)[image.rows].copy())
                    torch.testing.assert_close(found.float(), expected, rtol=0, atol=1e-3)


def test_a_slice_is_read_without_the_rest_of_the_file(cached, tmp_path):
    plan, shards = cached
    relative = plan.maps.folder.file(shards[0].name, "safetensors")
    data = bytearray(plan.run.get(relative))
    wanted = read_maps(plan.maps, shards[0].name, 1, 0)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    begin = 8 + int.from_bytes(data[:8], "little")
    first, last = (begin + offset for offset in header["1.0"]["data_offsets"])
    data[begin:first] = b"\xff" * (first - begin)  # what lies before is not looked at
    copy = RunFolder(str(tmp_path))
    copy.put("a.safetensors", bytes(data[:last]))
    np.testing.assert_array_equal(tensor_of(copy, "a.safetensors", pair_name(1, 0)), wanted)
    with pytest.raises(DamagedError, match="cut short"):
        tensor_of(copy, "a.safetensors", pair_name(1, 1))
    with pytest.raises(DamagedError, match=r"no safetensors file with a tensor '2.0'"):
        tensor_of(copy, "a.safetensors", pair_name(2, 0))


def test_a_flipped_bit_anywhere_in_the_maps_is_noticed_before_a_slice_is_read(cached):
    plan, shards = cached
    file = plan.maps.folder.file(shards[0].name, "safetensors")
    data = plan.run.get(file)
    plan.run.put(file, data[:-1] + bytes([data[-1] ^ 1]))
    _VERIFIED.clear()
    try:
        with pytest.raises(DamagedError, match=r"safetensors' is damaged"):
            read_maps(plan.maps, shards[0].name, 1, 0)
    finally:
        plan.run.put(file, data)


def test_the_last_layer_is_left_out_of_gradcam_and_kept_of_attention(cached, random_blip, tmp_path):
    plan, _ = cached
    assert plan.maps.layers == (0, 1)
    assert plan_of(tmp_path, random_blip, kind="attention").maps.layers == (0, 1, 2)
    with pytest.raises(LayerRangeError, match="layer 2 is the last one"):
        plan_of(tmp_path, random_blip, space={"layers": [0, 2]})


def test_pictures_are_kept_as_clip_sees_them(cached):
    plan, shards = cached
    sample = next(iter(read_shard(plan.run, shards[1])))
    pixels = read_pixels(plan.images, shards[1].name)
    assert pixels.shape == (2, 96, 96, 3)
    mean = decode_image(sample.image, 10**6).pixels.mean(axis=(0, 1))
    np.testing.assert_allclose(pixels[0].mean(axis=(0, 1)), mean, atol=1)


def test_cache_of_a_layer_does_not_depend_on_the_configured_layer_head_or_iterations(cached, random_blip, tmp_path):
    plan, _ = cached
    other = plan_of(
        tmp_path, random_blip,
        salience={
            "backbone": {"checkpoint": str(random_blip), "image_size": 48, "heads": 2},
            "layer": 1, "head": 1, "dropout": {"iterations": 2, "amount": 3},
        },
    )  # fmt: skip
    assert other.maps.fingerprint == plan.maps.fingerprint
    kind = plan_of(tmp_path, random_blip, kind="attention", space={"layers": [0, 1]})
    assert kind.maps.fingerprint != plan.maps.fingerprint


def test_finished_shards_of_the_cache_are_not_computed_again(cached):
    plan, shards = cached
    again = [cache_maps(plan.maps, shard) for shard in shards]
    assert all(result.resumed for result in again)
    assert all(cache_images(plan.images, s, r).resumed for s, r in zip(shards, again, strict=True))


@given(arrays.arrays(np.float32, (2, 3, 3), elements=st.floats(0, 2**-30, width=32)))
def test_half_precision_keeps_tiny_salience(maps):
    found = relative_to_peak(maps)
    peak = maps.max(axis=(1, 2), keepdims=True)
    expected = np.divide(maps, peak, out=np.zeros_like(maps), where=peak > 0)
    np.testing.assert_allclose(found.astype(np.float32), expected, atol=2**-11)


def test_maps_are_kept_relative_to_their_peak_and_those_without_salience_stay_zero():
    maps = np.array([[[0, 0], [0, 0]], [[0, 2], [1, 0]]], np.float32)
    assert relative_to_peak(maps).tolist() == [[[0, 0], [0, 0]], [[0, 1], [0.5, 0]]]


def test_label_maps_from_the_cache_are_those_of_full_precision(cached):
    plan, shards = cached
    off = plan.config.masks.crf.model_copy(update={"name": "off"})
    masks = plan.config.masks.model_copy(update={"background": "always", "crf": off})
    backbone = plan.maps.load().backbone
    for sample in read_shard(plan.run, shards[0]):
        image = next(p for p in read_images(plan.maps, shards[0].name) if p.key == sample.key)
        names = [plan.card.captions[label - 1] for label in image.classes]
        prompts = stack_prompts([build_prompts(names, plan.config.method.caption, backbone)])
        pixels = decode_image(sample.image, 10**6).pixels
        tokens = backbone.encode_image(model_pixels(pixels, (48, 48))[None])
        exact = salience(backbone, tokens, prompts, 0, 1).maps[0].unflatten(-1, backbone.grid).numpy()
        half = read_maps(plan.maps, shards[0].name, 0, 1)[image.rows].astype(np.float32)
        labels = [
            make_label_map(
                ClassMaps(maps[None], image.classes, None, *pixels.shape[:2]), pixels, masks, plan.config.method
            ).labels
            for maps in (exact, half)
        ]
        assert (labels[0] == labels[1]).mean() > 0.995
