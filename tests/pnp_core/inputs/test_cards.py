"""Dataset cards: all valid, and in agreement with the official class lists."""

import csv
import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from pnp_core.config import EvalConfig
from pnp_core.errors import UnknownNameError, UsageError
from pnp_core.inputs.cards import SCHEMA_FILE, available_cards, card_schema, load_card
from pnp_core.inputs.class_names import clean_class_names
from pnp_core.inputs.readers import resolve_card

CARDS = Path(__file__).parents[3] / "datasets"
NAMES = ["ade20k", "coco-object", "coco-stuff", "context59", "context60", "folder", "scenes", "voc20", "voc21"]


def test_all_cards_are_there():
    assert list(available_cards()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_card_fits_the_schema_and_loads(name):
    schema = json.loads((CARDS / SCHEMA_FILE).read_text())
    jsonschema.validate(yaml.safe_load((CARDS / f"{name}.yaml").read_text()), schema)
    card = load_card(name)
    assert card.name == name
    assert card.terms
    if card.classes:
        assert len(clean_class_names(card.captions)) == len(card.classes)


def test_schema_file_is_the_one_the_code_makes():
    written = json.loads((CARDS / SCHEMA_FILE).read_text())
    assert written == json.loads(json.dumps(card_schema())), "write it anew with the command in docs/datasets.md"


def test_schema_refuses_an_unknown_field():
    schema = json.loads((CARDS / SCHEMA_FILE).read_text())
    with pytest.raises(jsonschema.ValidationError, match="colour"):
        jsonschema.validate({"name": "x", "version": 1, "title": "x", "colour": "red"}, schema)


@pytest.mark.parametrize(
    ("name", "classes", "scored", "rule"),
    [
        ("voc21", 20, 21, "always"),
        ("voc20", 20, 20, "never"),
        ("context60", 59, 60, "always"),
        ("context59", 59, 59, "few"),
        ("coco-object", 80, 81, "always"),
        ("coco-stuff", 171, 171, "few"),
        ("ade20k", 150, 150, "few"),
    ],
)
def test_protocols(name, classes, scored, rule):
    card = load_card(name)
    assert (len(card.classes), card.number_of_classes, card.background_rule) == (classes, scored, rule)


@pytest.mark.parametrize(
    ("card", "file"),
    [
        ("context59", "NACLIP/cls_context59.txt"),
        ("coco-object", "SED/coco.json"),
        ("coco-stuff", "NACLIP/cls_coco_stuff.txt"),
    ],
)
def test_class_order_is_that_of_the_published_lists(shared_data, card, file):
    text = (shared_data / "class_lists" / file).read_text()
    listed = json.loads(text)[:80] if file.endswith("json") else [line.strip() for line in text.splitlines()]
    ours = load_card(card).names
    assert [n.replace(" ", "") for n in ours] == [n.replace(" ", "") for n in listed if n]


def test_ade20k_is_the_official_object_info(shared_data):
    with (shared_data / "class_lists/ade20k_objectInfo150.csv").open() as file:
        official = [row["Name"].replace(";", " ") for row in csv.DictReader(file)]
    card = load_card("ade20k")
    assert len(official) == 150
    for entry, words in zip(card.classes, official, strict=True):
        assert words.startswith(entry.name), (entry.name, words)


def test_voc_order_is_the_official_one(shared_data):
    lines = (shared_data / "class_lists/pascal_voc_classes_fcn.txt").read_text().splitlines()
    assert list(load_card("voc21").names) == [name.strip() for name in lines[1:21]]


@pytest.mark.parametrize(
    ("card", "file", "renamed"),
    [
        ("voc21", "voc.txt", 3),
        ("voc20", "voc.txt", 3),
        ("context60", "context59.txt", 3),
        ("context59", "context59.txt", 3),
        ("ade20k", "ade20k.txt", 22),
        ("coco-object", "coco_object.txt", 15),
    ],
)
def test_captions_of_the_authors_preset_have_the_authors_words_class_by_class(shared_data, card, file, renamed):
    listed = (shared_data / "class_lists/PnP-OVSS" / file).read_text().split()
    config = EvalConfig.model_validate({"preset": "authors", "out": "x", "dataset": card})
    found = load_card(card)
    assert list(found.captions_in(config.salience.words)) == listed
    assert found.renamed == renamed


def test_captions_of_the_authors_preset_run_the_words_of_coco_stuff_together(shared_data):
    listed = (shared_data / "class_lists/cocostuff_labels.txt").read_text().splitlines()
    official = {int(number): name.strip() for number, name in (line.split(": ", 1) for line in listed if ": " in line)}
    card = load_card("coco-stuff")
    words = [official[c.id].replace(" ", "").replace("-", "") for c in card.classes if c.id is not None]
    assert list(card.captions_in("authors")) == words
    assert {"trafficlight", "buildingother", "wallbrick"} <= set(words)


@pytest.mark.parametrize("name", NAMES)
def test_natural_words_are_those_of_every_other_preset(name):
    card = load_card(name)
    for preset in ("paper", "tiny", "photo"):
        words = EvalConfig.model_validate({"preset": preset, "out": "x"}).salience.words
        assert card.captions_in(words) == card.captions


def test_a_users_classes_have_no_other_words():
    own = load_card("folder").with_classes(("potted plant", "tv monitor"))
    assert own.captions_in("authors") == ("potted plant", "tv monitor")


@pytest.mark.parametrize(
    ("card", "split", "images"),
    [("voc21", None, 1449), ("voc20", "train", 1464), ("context59", None, 5104), ("coco-object", None, 5000),
     ("coco-stuff", "train", 118287), ("ade20k", None, 2000), ("folder", None, None), ("voc21", "nowhere", None)],
)  # fmt: skip
def test_official_number_of_pictures(card, split, images):
    assert load_card(card).images_of(split) == images


def test_coco_ids_are_the_official_ones(shared_data):
    categories = json.loads((shared_data / "coco/annotations/instances_val2017.json").read_text())["categories"]
    assert [(c.id, c.name) for c in load_card("coco-object").classes] == [(c["id"], c["name"]) for c in categories]
    listed = (shared_data / "class_lists/cocostuff_labels.txt").read_text().splitlines()
    official = dict(line.split(": ", 1) for line in listed if ": " in line)
    assert all(official[str(c.id)].strip() == c.name for c in load_card("coco-stuff").classes)


def test_extending_card_takes_the_rest_from_the_other(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: voc21\nname: mine\nversion: 3\ntitle: Mine\nterms: secret\n")
    card = load_card(str(tmp_path / "mine.yaml"))
    assert (card.name, card.version, card.terms, len(card.classes)) == ("mine", 3, "secret", 20)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: voc\nname: mine", "unknown dataset"),
        ("[a, b]", "must be a mapping"),
        ("{a: [}", "cannot read dataset card"),
        ("extends: voc21\nname: m\nnumber_of_classes: 7", "number_of_classes is 7, but there are 20 classes"),
        ("extends: voc21\nname: m\nclasses: [cat, Cat]\nnumber_of_classes: 3", "class name given twice: cat"),
        ("extends: voc21\nname: m\nclasses_file: x.txt", "either classes or a classes_file"),
        ("extends: voc21\nname: m\npalette: ['#12']", "palette"),
        (
            "extends: voc21\nname: m\nclasses: [{name: a, id: 2}, b]\nnumber_of_classes: 3",
            "has an id or none",
        ),
        ("extends: voc21\nname: m\nclasses: [background, b]\nnumber_of_classes: 3", "background is label 0 already"),
        ("extends: voc21\nname: m\nground_truth: [{name: m, kind: label-maps, path: x.png}]", "should match pattern"),
    ],
)
def test_broken_cards_are_refused_in_one_line(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_card(str(tmp_path / "mine.yaml"))


def test_names_captions_and_synonyms_find_the_label():
    card = load_card("voc21")
    assert card.labels(("TV monitor", "pottedplant", "airplane")) == (1, 16, 20)
    assert card.labels(("background", "cat")) == (0, 8)
    with pytest.raises(UnknownNameError, match="did you mean 'sheep'"):
        card.labels(("shep",))
    with pytest.raises(UnknownNameError):
        load_card("voc20").labels(("background",))


def test_card_with_classes_of_its_own_takes_over_no_subsets_of_others(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("extends: voc21\nname: own\nnumber_of_classes: 3\nclasses: [cat, gnu]\n")
    assert load_card("voc21").subsets
    assert load_card(str(own)).subsets == {}
    own.write_text(own.read_text() + "subsets: {wild: [gnu, horse]}\n")
    with pytest.raises(UsageError, match="subsets name classes that are not there: horse"):
        load_card(str(own))


def test_classes_of_a_file_that_do_not_go_with_the_card_are_refused_in_one_line(tmp_path):
    root, own = tmp_path / "data", tmp_path / "own.yaml"
    root.mkdir()
    own.write_text(
        "{name: own, version: 1, title: Own, task: object, background: true, terms: own, splits: {all: {}}, "
        "classes_file: names.txt, subsets: {wild: [gnu]}, "
        "ground_truth: [{kind: label-maps, name: m, path: 'm/{id}.png'}]}"
    )
    (root / "names.txt").write_text("cat\ndog\n")
    with pytest.raises(UsageError, match=r"^dataset own with 2 classes: .*subsets name classes .* not there: gnu"):
        resolve_card(load_card(str(own)), str(root))
    (root / "names.txt").write_text("cat\ngnu\n")
    assert resolve_card(load_card(str(own)), str(root)).subsets == {"wild": ("gnu",)}


def test_the_authors_words_change_no_shard():
    """What shards are named by is as before there were such words, so that runs go on."""
    assert not any("authors" in entry for entry in load_card("voc21").facts()["classes"])


def test_captions_are_made_once_and_anew_for_a_copy_with_other_classes():
    card = load_card("folder").with_classes(("a", "b"))
    assert card.captions is card.captions_in("natural") is card.captions
    assert card.captions_in("authors") is card.captions_in("authors")
    other = load_card("folder").with_classes(("c",))
    assert card.model_copy(update={"classes": other.classes}).captions == ("c",)
    assert card == load_card("folder").with_classes(("a", "b"))
