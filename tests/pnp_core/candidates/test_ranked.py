"""Thousands of classes: ranked by a contrastive head, the best alone are looked at."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BlipForImageTextRetrieval

from pnp_core.candidates import open_candidates, ranking_of
from pnp_core.candidates.base import Images, SourceContext
from pnp_core.candidates.clip import ClipTexts
from pnp_core.candidates.config import CandidatesConfig
from pnp_core.config import EvalConfig, LabelConfig
from pnp_core.data import Sample
from pnp_core.errors import UsageError
from pnp_core.inputs.cards import load_card
from pnp_core.methods.pnp.config import PnpConfig
from pnp_core.methods.pnp.loaded import Encoded, LoadedPnp
from pnp_core.openclip import text_cache
from pnp_core.openclip.config import ClipConfig
from pnp_core.openclip.model import load_clip
from pnp_core.openclip.text_cache import cached_texts
from pnp_core.runs.plan import plan_eval, plan_label
from pnp_core.stages.config import RuntimeConfig, SalienceConfig
from pnp_core.stages.maps import SalienceJob

TINY_CLIP = ClipConfig(model="tiny", template="a picture of {}")
NAMES = [f"{colour} {thing}" for colour in ("red", "blue", "green") for thing in ("car", "key", "star", "tree")]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/pnp-ovss/texts"


def ranking(classes: int, own: bool = False, quick: bool = False, **options):
    return ranking_of(CandidatesConfig(clip=TINY_CLIP, **{"source": "itm", **options}), own, quick, classes)


def test_few_classes_are_looked_at_all_and_many_are_ranked():
    assert ranking(254) is None
    assert ranking(255).by == "clip"
    assert ranking(255, own=True).by == "own"
    assert ranking(3000, rerank=5000) is None
    assert ranking(200, ranker="clip").keep == 128
    assert ranking(3000, ranker="none") is None
    assert ranking(3000, source="vocabulary", rerank=7).keep == 7
    assert ranking(3000, source="clip") is None
    assert ranking(3000, quick=True) is None
    assert ranking(3000, quick=True, source="vocabulary").by == "clip"
    assert ranking(3000, quick=True, ranker="clip").by == "clip"
    with pytest.raises(UsageError, match="no contrastive head to rank classes by"):
        ranking(3000, ranker="own")


def test_the_best_classes_by_clip_are_matched_and_no_others(backbone, pixels):
    config = CandidatesConfig(source="itm", ranker="clip", rerank=4, clip=TINY_CLIP)
    card, allowed = load_card("folder").with_classes(tuple(NAMES)), tuple(range(1, len(NAMES) + 1))
    context = SourceContext(config, card, allowed, "cpu")
    source = open_candidates(context, None, ranking_of(config, False, False, len(NAMES)))
    noise = np.random.default_rng(0).integers(0, 255, (2, 40, 60, 3), dtype=np.uint8)
    method = LoadedPnp(PnpConfig(), backbone, tuple(NAMES))
    encoded = Encoded(pixels, backbone.encode_image(pixels))
    asked = (partial(ask, encoded) for ask in (method.match, method.match_each, method.similarity))
    images = Images([Sample("k", b"", "png", "s")] * 2, *asked)
    found = source.propose(images, [source.preprocess(image) for image in noise])
    clip = load_clip(TINY_CLIP, "cpu")
    cosines = clip.encode_pixels(torch.stack([clip.pixels(i, "whole") for i in noise])) @ clip.encode_texts(
        [f"a picture of {name}" for name in NAMES]
    ).T  # fmt: skip
    everything = method.match(encoded, allowed)
    for proposal, row, matched in zip(found, cosines.numpy(), everything, strict=True):
        best = tuple(sorted(int(n) + 1 for n in np.argsort(-row, kind="stable")[:4]))
        assert proposal.classes == best
        assert proposal.scores == pytest.approx([matched[label - 1] for label in best], abs=1e-5)


def test_images_with_different_numbers_of_classes_are_matched_together(backbone, pixels):
    method = LoadedPnp(PnpConfig(), backbone, tuple(NAMES))
    encoded = Encoded(pixels, backbone.encode_image(pixels))
    everything = method.match(encoded, tuple(range(1, 13)))
    found = method.match_each(encoded, [(2, 7, 12), (5,)])
    assert found[0] == pytest.approx(everything[0, [1, 6, 11]], abs=1e-5)
    assert found[1] == pytest.approx(everything[1, [4]], abs=1e-5)


def test_blips_own_head_ranks_as_the_stock_model_does(backbone, random_blip, pixels, cache):
    stock = BlipForImageTextRetrieval.from_pretrained(random_blip).eval()
    method = LoadedPnp(PnpConfig(), backbone, tuple(NAMES), revision="r")
    found = method.similarity(Encoded(pixels, backbone.encode_image(pixels)), (1, 2, 3))
    for label in (1, 2, 3):
        texts = backbone._tokenizer([f"A picture of {NAMES[label - 1]}"] * 2, return_tensors="pt")
        with torch.no_grad():
            expected = stock(
                input_ids=texts["input_ids"], attention_mask=texts["attention_mask"], pixel_values=pixels,
                use_itm_head=False, interpolate_pos_encoding=True,
            ).itm_score  # fmt: skip
        assert found[:, label - 1] == pytest.approx(expected[:, 0].numpy(), abs=1e-5)
    assert len(list(cache.glob("*.safetensors"))) == 1


def test_of_several_prompts_of_a_class_the_best_counts():
    card = load_card("folder").with_classes(("car", "key"))
    config = CandidatesConfig(source="clip", clip=TINY_CLIP)
    texts = ClipTexts(SourceContext(config, card, (1, 2), "cpu", (("car", "red car"), ("key",))))
    noise = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    found = texts.similarity(texts.pixels(noise)[None])[0].tolist()
    clip = load_clip(TINY_CLIP, "cpu")
    prompts = clip.encode_texts(["a picture of car", "a picture of red car", "a picture of key"])
    car, red, key = (clip.encode_pixels(clip.pixels(noise, "whole")[None]) @ prompts.T)[0].tolist()
    assert found == pytest.approx([max(car, red), key], abs=1e-6)


def test_texts_are_encoded_once_and_damaged_or_foreign_files_are_made_again(cache):
    calls = []

    def encode(texts):
        calls.append(texts)
        return torch.arange(2.0 * len(texts)).view(-1, 2)

    expected = encode(["a", "b"])
    assert cached_texts(encode, "r", ["a", "b"]).equal(expected)
    assert cached_texts(encode, "r", ["a", "b"]).equal(expected)
    assert len(calls) == 2
    cached_texts(encode, "other weights", ["a", "b"])
    (one, other) = cache.glob("*.safetensors")
    for file, data in ((one, b"no tensors"), (other, b"")):
        file.write_bytes(data)
    assert cached_texts(encode, "r", ["a", "b"]).equal(expected)
    assert len(calls) == 4


def test_the_oldest_vocabularies_go(cache, monkeypatch):
    monkeypatch.setattr(text_cache, "KEPT", 3)
    for n in range(6):
        cached_texts(lambda texts: torch.zeros(1, 2), "r", [str(n)])
    assert len(list(cache.iterdir())) == 3


def test_files_of_texts_have_room_together_and_leave_nothing_when_they_cannot_be_written(cache, monkeypatch):
    cached_texts(lambda texts: torch.zeros(1, 2), "r", ["0"])
    size = next(cache.iterdir()).stat().st_size
    monkeypatch.setattr(text_cache, "KEPT_BYTES", 2 * size)
    for n in range(1, 5):
        cached_texts(lambda texts: torch.zeros(1, 2), "r", [str(n)])
    kept = set(cache.iterdir())
    assert len(kept) == 2

    def full(self, target):
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert cached_texts(lambda texts: torch.ones(1, 2), "r", ["more"]).equal(torch.ones(1, 2))
    assert set(cache.iterdir()) == kept


def test_clip_sees_the_whole_picture_or_its_centre():
    clip = load_clip(TINY_CLIP, "cpu")
    image = np.zeros((32, 96, 3), np.uint8)
    image[:, :20] = 255
    assert clip.pixels(image, "centre").unique().numel() == 3  # a black picture, channel by channel
    assert clip.pixels(image, "whole").unique().numel() > 3
    square = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    assert clip.pixels(square, "whole").equal(clip.pixels(square))


def job_of(**candidates) -> SalienceJob:
    card = load_card("folder").with_classes(tuple(f"c{i}" for i in range(300)))
    config = SalienceConfig(candidates=CandidatesConfig.model_validate({"clip": TINY_CLIP, **candidates}))
    return SalienceJob.create("out", PnpConfig(), config, RuntimeConfig(), card)


def test_how_classes_are_ranked_is_in_the_fingerprint_where_they_are():
    names = [
        job_of(source="itm").fingerprint,
        job_of(source="itm", rerank=64).fingerprint,
        job_of(source="itm", view="centre").fingerprint,
        job_of(source="itm", ranker="none").fingerprint,
    ]
    assert len(set(names)) == 4
    assert job_of(source="labels").fingerprint == job_of(source="labels", rerank=9, ranker="clip").fingerprint
    assert job_of(source="clip").fingerprint != job_of(source="clip", view="centre").fingerprint


def test_fingerprints_of_runs_that_rank_nothing_are_those_of_runs_before(tmp_path):
    label = LabelConfig(source=str(tmp_path), classes=("cat", "dog"), out="out")
    evaluation = EvalConfig.model_validate({"out": "out", "salience": {"candidates": {"source": "itm"}}})
    centre = {"salience": {"candidates": {"source": "clip", "view": "centre"}}}
    assert [plan_label(label).salience.fingerprint, plan_eval(evaluation).salience.fingerprint] == BEFORE[:2]
    assert plan_eval(EvalConfig.model_validate({"out": "out", **centre})).salience.fingerprint == BEFORE[2]


BEFORE = ["a14ef55f93ddbba2", "e014621412567e4d", "9b84cbbaba44de95"]
