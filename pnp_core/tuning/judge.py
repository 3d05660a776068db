"""The judge that a tuning run asks for: named, and loaded."""

from __future__ import annotations

from collections.abc import Sequence

from pnp_core.devices import resolve_device
from pnp_core.methods.base import Pinned
from pnp_core.methods.pnp.backbones import Checkpoint, load_backbone
from pnp_core.methods.pnp.config import PnpConfig
from pnp_core.openclip.model import clip_image_size, clip_revision, load_clip
from pnp_core.stages.config import RuntimeConfig
from pnp_core.tuning.config import TuneConfig
from pnp_core.tuning.region_scorers import ClipOnlooker, MatchOnlooker, RegionScorer


def _own_method(config: TuneConfig) -> PnpConfig:
    """The method that judges itself; others are refused before."""
    assert isinstance(config.method, PnpConfig)
    return config.method


def judge_side(config: TuneConfig) -> int:
    """Pixels that the judge looks at, a side; nothing is loaded.

    Raises:
        CheckpointError, UnknownNameError: there is no such CLIP.
    """
    reward = config.reward
    if reward.judge == "clip":
        return clip_image_size(reward.clip)
    return reward.match_side or max(_own_method(config).backbone.sides)


def judge_revision(config: TuneConfig, pinned: Pinned) -> str:
    """Names the judge's weights and what decides how it looks.

    Raises:
        CheckpointError, UnknownNameError: there is no such CLIP.
    """
    if config.reward.judge == "clip":
        return clip_revision(config.reward.clip)
    return f"match:{pinned.revision}:{judge_side(config)}:{_own_method(config).caption.model_dump_json()}"


def load_onlooker(config: TuneConfig, pinned: Pinned, names: Sequence[str], runtime: RuntimeConfig) -> RegionScorer:
    """The judge, with the names of the classes as captions say them.

    Raises:
        CheckpointError: the weights are not at hand.
    """
    if config.reward.judge == "clip":
        model = load_clip(config.reward.clip, str(resolve_device(runtime.device)))
        return ClipOnlooker.create(model, names, config.reward.clip.template)
    assert isinstance(pinned, Checkpoint)
    side, method = judge_side(config), _own_method(config)
    own = method.backbone
    backbone = own if own.sides == (side, side) else own.model_copy(update={"image_size": (side, side)})
    return MatchOnlooker(load_backbone(backbone, pinned, runtime.device), names, method.caption)
