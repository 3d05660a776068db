"""CLIPs as they are loaded: once, and anew where there are other weights."""

import torch

from pnp_core.openclip.config import ClipConfig
from pnp_core.openclip.model import load_clip
from tests.clips import save_random_clip


def test_other_weights_in_the_same_place_are_loaded_anew(tmp_path):
    config = ClipConfig(model=f"local-dir:{save_random_clip(tmp_path / 'clip')}")
    before = load_clip(config, "cpu")
    assert load_clip(config, "cpu") is before
    save_random_clip(tmp_path / "clip", seed=1)
    after = load_clip(config, "cpu")
    assert not torch.equal(before.encode_texts(["car"]), after.encode_texts(["car"]))
