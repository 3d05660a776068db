import numpy as np
import open_clip
import pytest

from pnp_core.openclip import queries
from pnp_core.openclip.config import ClipConfig
from pnp_core.openclip.model import load_clip
from pnp_core.openclip.queries import IMAGENET_TEMPLATES, embed_queries

TEMPLATES = ("a picture of {}", "a {}")


@pytest.fixture
def clip(monkeypatch):
    monkeypatch.setattr(queries, "_known", {})
    return load_clip(ClipConfig(model="tiny"), "cpu")


def test_the_templates_are_the_eighty_of_openai():
    assert len(IMAGENET_TEMPLATES) == 80
    assert IMAGENET_TEMPLATES[0] == open_clip.OPENAI_IMAGENET_TEMPLATES[0]("{}") == "a bad photo of a {}."


def test_an_embedding_is_the_normalised_mean_of_normalised_ones(clip):
    names = ["car", "ice cream", "car"]
    made = embed_queries(clip, "r", names, TEMPLATES).numpy()
    for row, name in zip(made, names, strict=True):
        each = [
            clip._model.encode_text(clip._tokenizer([t.replace("{}", name)]))[0].detach().numpy() for t in TEMPLATES
        ]
        mean = sum(one / np.linalg.norm(one) for one in each) / 2
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-6)


def test_a_text_is_encoded_once_for_each_weights_and_templates(clip, monkeypatch):
    encoded = []
    plain = clip.encode_texts
    monkeypatch.setattr(clip, "encode_texts", lambda texts: encoded.extend(texts) or plain(texts))
    first = embed_queries(clip, "r", ["car", "key"], TEMPLATES)
    again = embed_queries(clip, "r", ["key", "car", "mug"], TEMPLATES)
    assert encoded == ["a picture of car", "a car", "a picture of key", "a key", "a picture of mug", "a mug"]
    assert (again[:2] == first.flip(0)).all()
    embed_queries(clip, "other", ["car"], TEMPLATES)
    embed_queries(clip, "r", ["car"], TEMPLATES[:1])
    assert len(encoded) == 9


def test_no_more_are_kept_than_there_is_room_for(clip, monkeypatch):
    monkeypatch.setattr(queries, "_MOST", 2)
    embed_queries(clip, "r", ["car", "key"], TEMPLATES)
    assert embed_queries(clip, "r", ["car", "mug"], TEMPLATES).shape == (2, 128)
    assert {query for _, _, query in queries._known} == {"car", "mug"}


def test_an_embedding_does_not_depend_on_what_was_embedded_before(clip):
    names = [f"{one} {other}" for one in ("red", "small", "old") for other in ("car", "key", "mug", "book")]
    together = embed_queries(clip, "r", names, TEMPLATES[:1])
    queries._known.clear()
    embed_queries(clip, "r", names[5:8], TEMPLATES[:1])
    apart = embed_queries(clip, "r", names, TEMPLATES[:1])
    assert together.numpy().tobytes() == apart.numpy().tobytes()
