"""From proposals to choices: threshold, fallback, limit; and the sources that look at pictures."""

import json
import math
from functools import partial

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from pnp_core.candidates import open_candidates
from pnp_core.candidates.base import CandidateSource, Choice, Images, Proposal, SourceContext, choose
from pnp_core.candidates.config import CandidatesConfig
from pnp_core.data import Sample
from pnp_core.errors import CheckpointError, UnknownNameError
from pnp_core.inputs.cards import load_card
from pnp_core.methods.pnp.config import CaptionConfig, PnpConfig
from pnp_core.methods.pnp.loaded import Encoded, LoadedPnp
from pnp_core.methods.pnp.prompts import build_prompts, stack_prompts
from pnp_core.methods.pnp.salience import salience
from pnp_core.openclip.config import ClipConfig
from pnp_core.openclip.model import clip_revision, load_clip, load_weights

ALLOWED = (1, 2, 3, 4)
PROPOSAL = Proposal((3, 1, 2), (0.9, 0.5, 0.7))


def chosen(proposal: Proposal = PROPOSAL, default: float | None = None, **options) -> Choice:
    return choose(proposal, CandidatesConfig(source="itm", **options), default, ALLOWED)


def test_classes_come_in_label_order_with_their_scores():
    assert chosen() == Choice((1, 2, 3), (0.5, 0.7, 0.9), "itm")


def test_threshold_is_exclusive_and_the_configured_one_wins():
    assert chosen(min_score=0.7).classes == (3,)
    assert chosen(default=0.5).classes == (2, 3)
    assert chosen(default=0.95, min_score=0.0).classes == (1, 2, 3)


def test_top_k_keeps_the_best_and_ties_go_by_vocabulary():
    assert chosen(top_k=2).classes == (2, 3)
    assert chosen(Proposal((3, 2, 1), (0.5, 0.5, 0.5)), top_k=2).classes == (1, 2)


def test_fallbacks():
    assert chosen(min_score=0.99) == Choice((3,), (0.9,), "itm, best below the threshold")
    assert chosen(min_score=0.99, fallback="first") == Choice((1,), (0.5,), "itm, first of the vocabulary")
    assert chosen(min_score=0.99, fallback="none") == Choice((), (), "no candidate class scores enough", usable=False)
    assert chosen(min_score=0.99, fallback="background") == Choice((), (), "itm, no class: all background")
    assert not chosen(Proposal((), unknown=True), fallback="background").usable
    assert chosen(Proposal((), why_empty="nothing seen")).how == "nothing seen"


def test_classes_outside_the_vocabulary_are_never_chosen():
    assert chosen(Proposal((9, 2), (0.9, 0.8))).classes == (2,)


def test_ungraded_classes_pass_any_threshold():
    assert chosen(Proposal((2, 1)), default=0.9) == Choice((1, 2), (None, None), "itm")


@given(
    st.dictionaries(st.sampled_from(ALLOWED), st.floats(0, 1)),
    st.floats(0, 0.99),
    st.integers(1, 4),
    st.sampled_from(["best", "first", "none"]),
)
def test_choice_is_never_empty_but_without_fallback(scores, least, top_k, fallback):
    proposal = Proposal(tuple(scores), tuple(scores.values()))
    choice = chosen(proposal, min_score=least, top_k=top_k, fallback=fallback)
    assert len(choice.classes) == len(choice.scores) <= top_k
    assert list(choice.classes) == sorted(choice.classes)
    if fallback == "first" or (fallback == "best" and scores):
        assert choice.classes


def no_match(labels: tuple[int, ...]) -> np.ndarray:
    raise AssertionError("no source but itm asks for it")


def images(*classes: tuple[int, ...] | None, match=no_match) -> Images:
    return Images([Sample("k", b"", "png", "s", classes=c) for c in classes], match)


def source_of(names, allowed, **options) -> CandidateSource:
    card = load_card("folder").with_classes(tuple(names))
    return open_candidates(SourceContext(CandidatesConfig(**options), card, allowed, "cpu"), None)


def test_labels_and_vocabulary():
    labels = source_of("abcd", ALLOWED, source="labels").propose(images((2, 1), None, ()), [None] * 3)
    assert [p.classes for p in labels] == [(2, 1), (), ()]
    config = CandidatesConfig(fallback="first")
    unknown, empty = (choose(proposal, config, None, ALLOWED) for proposal in labels[1:])
    assert (unknown.usable, unknown.how) == (False, "no candidate classes: no image-level labels")
    # What is known to hold none of the classes is background, and is scored as such.
    assert empty == Choice((), (), "labels, no class: all background")
    assert source_of("abcd", ALLOWED, source="vocabulary").propose(images(None), [None])[0].classes == ALLOWED


COLOURS = ["red", "blue", "green", "grey", "black"]
THINGS = ["car", "key", "star", "tree", "fish", "mug", "pear", "heart"]
NAMES = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]


def test_match_scores_are_those_of_one_caption_per_class(backbone, pixels, monkeypatch):
    monkeypatch.setattr("pnp_core.methods.pnp.matching.CAPTIONS_AT_ONCE", 7)
    allowed = tuple(range(1, len(NAMES) + 1))
    method = LoadedPnp(PnpConfig(caption=CaptionConfig(mode="joint")), backbone, tuple(NAMES))
    source = source_of(NAMES, allowed, source="itm")
    tokens = backbone.encode_image(pixels)
    found = source.propose(images(None, None, match=partial(method.match, Encoded(pixels, tokens))), [None, None])
    prompts = build_prompts(NAMES, CaptionConfig(mode="per_class"), backbone)
    expected = salience(backbone, tokens, stack_prompts([prompts, prompts]), 0, 0).itm
    assert [p.classes for p in found] == [allowed, allowed]
    assert np.allclose([p.scores for p in found], expected.numpy(), atol=1e-5)


CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A random CLIP as open_clip publishes them: configuration and weights in a folder."""
    folder = tmp_path_factory.mktemp("clip")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIP, "preprocess_cfg": {"size": [32, 32]}}))
    torch.manual_seed(0)
    model = open_clip.CLIP(**{**CLIP, "vision_cfg": CLIP["vision_cfg"], "text_cfg": CLIP["text_cfg"]})
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


def test_clip_probabilities_are_a_softmax_over_the_vocabulary(clip_folder):
    config = ClipConfig(model=f"local-dir:{clip_folder}")
    model = load_clip(config, "cpu")
    source = source_of(["cat", "dog", "car"], (1, 3), source="clip", clip=config)
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    (proposal,) = source.propose(images(None), [source.preprocess(image)])
    assert proposal.classes == (1, 3)
    assert sum(proposal.scores or ()) == pytest.approx(1)
    image = model.encode_pixels(model.pixels(image, "whole")[None])[0]
    text = model.encode_texts(["a photo of a cat", "a photo of a car"])
    odds = [math.exp(float(image @ t) * model.scale) for t in text]
    assert proposal.scores == pytest.approx([o / sum(odds) for o in odds], rel=1e-4)


def test_clip_takes_very_thin_pictures_without_enlarging_them(clip_folder):
    model = load_clip(ClipConfig(model=f"local-dir:{clip_folder}"), "cpu")
    assert model.pixels(np.zeros((1, 200_000, 3), np.uint8)).shape == (3, 32, 32)


def test_clip_revision_follows_the_weights_and_names_what_is_missing(clip_folder, tmp_path):
    first = clip_revision(ClipConfig(model=f"local-dir:{clip_folder}"))
    assert first == clip_revision(ClipConfig(model=f"local-dir:{clip_folder}"))
    assert clip_revision(ClipConfig()) == "ViT-B-16:openai:quickgelu"
    with pytest.raises(CheckpointError, match=r"open_clip_config\.json is missing"):
        clip_revision(ClipConfig(model=f"local-dir:{tmp_path}"))
    with pytest.raises(UnknownNameError, match="did you mean 'ViT-B-16'"):
        clip_revision(ClipConfig(model="ViT-B-1"))
    with pytest.raises(CheckpointError, match="neither a file nor a tag of ViT-B-16"):
        clip_revision(ClipConfig(pretrained="openia"))


def test_clip_without_a_network_says_what_to_do(monkeypatch):
    load_weights.cache_clear()
    with pytest.raises(CheckpointError, match="without a network give a weights file"):
        load_clip(ClipConfig(model="ViT-B-32", pretrained="laion2b_s34b_b79k"), "cpu")
