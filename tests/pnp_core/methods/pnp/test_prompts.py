import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertTokenizerFast, RobertaTokenizerFast

from pnp_core.errors import CaptionTooLongError, ClassNameError
from pnp_core.inputs.class_names import clean_class_names
from pnp_core.methods.pnp.config import CaptionConfig
from pnp_core.methods.pnp.prompts import EncodedText, build_prompts, stack_prompts

JOINT, PER_CLASS = CaptionConfig(), CaptionConfig(mode="per_class")


class HubTokenizer:
    """A real published vocabulary behind the interface the prompts need."""

    def __init__(self, tokenizer, max_tokens: int = 512) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens

    def tokenize(self, text: str) -> EncodedText:
        encoded = self.tokenizer(text, return_offsets_mapping=True, verbose=False)
        unknown = [i == self.tokenizer.unk_token_id for i in encoded["input_ids"]]
        return EncodedText(encoded["input_ids"], [tuple(o) for o in encoded["offset_mapping"]], unknown)


@pytest.fixture(scope="module")
def bert(shared_data):
    return HubTokenizer(BertTokenizerFast(vocab=str(shared_data / "tokenizers/bert-base-uncased/vocab.txt")))


@pytest.fixture(scope="module")
def roberta(shared_data):
    folder = shared_data / "tokenizers/roberta-base"
    return HubTokenizer(RobertaTokenizerFast(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt")))


def words(prompts, encoder, c: int) -> list[str]:
    """The word pieces that stand for class c."""
    n = int(prompts.caption_of_class[c])
    ids = prompts.ids[n][prompts.class_tokens[c, n]].tolist()
    return encoder.tokenizer.convert_ids_to_tokens(ids)


def test_multi_word_and_hyphenated_names_own_all_their_word_pieces(bert):
    prompts = build_prompts(["traffic light", "hot-air balloon", "pottedplant"], JOINT, bert)
    assert prompts.texts == ("A picture of traffic light hot-air balloon pottedplant",)
    assert words(prompts, bert, 0) == ["traffic", "light"]
    assert words(prompts, bert, 1) == ["hot", "-", "air", "balloon"]
    assert words(prompts, bert, 2) == ["pot", "##ted", "##pl", "##ant"]


def test_byte_pair_vocabulary_works_the_same(roberta):
    prompts = build_prompts(["traffic light", "hot-air balloon"], JOINT, roberta)
    assert words(prompts, roberta, 0) == ["Ġtraffic", "Ġlight"]
    assert words(prompts, roberta, 1) == ["Ġhot", "-", "air", "Ġballoon"]


def test_per_class_gives_one_caption_each(bert):
    prompts = build_prompts(["cat", "traffic light"], PER_CLASS, bert)
    assert prompts.texts == ("A picture of cat", "A picture of traffic light")
    assert prompts.caption_of_class.tolist() == [0, 1]
    assert prompts.mask.sum(1).tolist() == [6, 7]


def test_template_words_and_special_tokens_belong_to_no_class(bert):
    prompts = build_prompts(["cat", "dog"], CaptionConfig(template="a photo of {} outdoors"), bert)
    owned = prompts.class_tokens.any(0)[0].tolist()
    assert owned == [False] * 4 + [True, True] + [False, False]


def test_caption_over_the_limit_is_halved_and_every_class_stays_named(backbone):
    names = [f"car {chr(97 + i)}{chr(97 + j)}" for i in range(6) for j in range(6)]
    prompts = build_prompts(names, JOINT, backbone)
    assert len(prompts.texts) > 1
    assert prompts.ids.shape[1] <= backbone.max_tokens
    assert prompts.class_tokens.any(dim=(1, 2)).all()
    assert " ".join(text.removeprefix("A picture of ") for text in prompts.texts) == " ".join(names)


def test_caption_over_the_limit_is_refused_when_asked(backbone):
    names = [f"car {chr(97 + i)}" for i in range(26)] + ["key a", "key b", "key c", "key d"]
    with pytest.raises(CaptionTooLongError, match="the text encoder takes 64"):
        build_prompts(names, CaptionConfig(overlong="error"), backbone)


def test_single_name_over_the_limit_is_refused(backbone):
    with pytest.raises(CaptionTooLongError, match="shorten the name"):
        build_prompts(["z" * 90], JOINT, backbone)


def test_name_without_a_piece_in_the_vocabulary_is_unknown(backbone):
    with pytest.raises(ClassNameError, match="class '☕' is unknown to the text encoder"):
        build_prompts(["car", "☕"], JOINT, backbone)


def test_name_that_vanishes_in_the_tokenizer_is_refused(backbone):
    with pytest.raises(ClassNameError, match="has no token"):
        build_prompts(["\u200b"], JOINT, backbone)


@pytest.mark.parametrize("names", [[], [""], ["cat", "  "]])
def test_empty_names_are_refused(names):
    with pytest.raises(ClassNameError, match="must not be empty"):
        clean_class_names(names)


def test_duplicate_names_are_refused_whatever_their_case():
    with pytest.raises(ClassNameError, match="class 'Cat' is given twice"):
        clean_class_names(["cat", "dog", "Cat"])


def test_names_are_stripped():
    assert clean_class_names(["  traffic \t light "]) == ["traffic light"]


WORD = st.one_of(
    st.sampled_from(["car", "hot-air", "light", "ice", "Café", "naïve", "x-ray", "4x4", "o'clock", "heart's", "tree."]),
    st.text("abcxyzABC0129-'./&+éüñ", min_size=1, max_size=8),
)
NAME = st.lists(WORD, min_size=1, max_size=3).map(" ".join)


@given(st.lists(NAME, min_size=1, max_size=7, unique_by=str.lower), st.sampled_from([JOINT, PER_CLASS]))
def test_any_names_get_disjoint_token_spans_that_cover_them(backbone, names, config):
    names = clean_class_names(names)
    prompts = build_prompts(names, config, backbone)
    owners = prompts.class_tokens.sum(0)
    assert int(owners.max()) <= 1
    for c, name in enumerate(names):
        n = int(prompts.caption_of_class[c])
        text, own = prompts.texts[n], prompts.class_tokens[c, n].nonzero()[:, 0].tolist()
        assert own
        assert own == list(range(own[0], own[-1] + 1))
        offsets = backbone.tokenize(text).offsets
        start, end = offsets[own[0]][0], offsets[own[-1]][1]
        covered = text[start:end]
        assert covered == name


def test_more_classes_than_mask_values_are_refused():
    with pytest.raises(ClassNameError, match="65535 classes are too many: masks hold labels 1 to 65534"):
        clean_class_names([f"c{i}" for i in range(65_535)])


def test_padded_captions_and_classes_stay_apart(backbone):
    batch = stack_prompts(
        [build_prompts(["car"], PER_CLASS, backbone), build_prompts(["key", "mug"], PER_CLASS, backbone)]
    )
    assert batch.captions.tolist() == [[True, False], [True, True]]
    assert batch.classes == (1, 2)
    assert not batch.class_tokens[0, 1].any()
    assert torch.equal(batch.mask[0, 1].long(), torch.eye(batch.mask.shape[2], dtype=torch.long)[0])
