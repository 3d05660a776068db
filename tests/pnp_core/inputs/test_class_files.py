"""Files of classes: what each form says, and one line for each thing that can be wrong with one."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pnp_core.config import LabelConfig
from pnp_core.errors import ClassNameError, PnpError, UnknownNameError
from pnp_core.inputs.cards import available_cards, load_card
from pnp_core.inputs.class_files import classes_of
from pnp_core.inputs.own_classes import OwnClass, vocabulary_of

PETS = (
    "cat",
    OwnClass(name="dog", prompts=("dog", "puppy")),
    OwnClass(name="sky", background=True),
    OwnClass(name="wall", background=True),
)
WITH_IDS = (
    OwnClass(name="cat", id=7, colour="#ff8800"),
    OwnClass(name="dog", prompts=("dog", "puppy"), id=1203),
    OwnClass(name="sky", prompts=("sky", "clouds"), background=True),
)


def written(folder: Path, name: str, text: str | bytes) -> str:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(file)


FORMS = {
    "lines": ("pets.txt", "# pets\ncat\n\n  dog: dog, puppy\nbackground: sky, wall\n", PETS),
    "a list": (
        "pets.yaml",
        "- cat\n- {name: dog, prompts: [dog, puppy]}\n"
        "- background: true\n  name: sky\n- {label: wall, background: true}\n",
        PETS,
    ),
    "a mapping": ("pets.yml", "cat:\ndog: [dog, puppy]\nbackground: [sky, wall]\n", PETS),
    "a card": (
        "card.yaml",
        "name: pets\nversion: 1\ntask: object\n"
        "background: [sky, wall]\nclasses:\n- cat\n- {name: dog, prompts: [dog, puppy]}\n",
        PETS,
    ),
    "rows": ("pets.csv", 'name,prompts,background\ncat,,\ndog,"dog, puppy",no\nsky,,yes\nwall,,true\n', PETS),
    "rows of a spreadsheet": ("pets.csv", "label;prompts\ncat\ndog;dog|puppy\nbackground;sky|wall\n", PETS),
    "ids in rows": (
        "ids.csv",
        "name,id,colour,prompts,background\ncat,7,#FF8800,,\ndog,1203,,dog;puppy,\nsky,,,sky;clouds,1\n",
        WITH_IDS,
    ),
    "ids in a mapping": (
        "ids.yaml",
        "cat: {id: 7, color: '#ff8800'}\ndog: {id: 1203, prompts: [dog, puppy]}\n"
        "sky: {prompts: [sky, clouds], background: true}\n",
        WITH_IDS,
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_says_names_prompts_ids_colours_and_background(form, tmp_path):
    name, text, expected = FORMS[form]
    file = written(tmp_path, name, text)
    assert classes_of([file]) == classes_of(file) == classes_of(Path(file)) == expected


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mark", [codecs.BOM_UTF8, b""])
def test_a_byte_order_mark_and_lines_of_windows_change_nothing(form, mark, tmp_path):
    name, text, expected = FORMS[form]
    assert classes_of([written(tmp_path, name, mark + text.replace("\n", "\r\n").encode())]) == expected
    assert classes_of([written(tmp_path, name, text.encode("utf-16"))]) == expected


def test_names_alone_are_what_they_were(tmp_path):
    names = ["cat", "door/gate", "emblem: flag"]
    assert classes_of(names) == tuple(names)
    assert classes_of([written(tmp_path, "names.txt", "cat\ndog\n")]) == ("cat", "dog")


def test_a_configuration_keeps_what_a_file_says_and_needs_it_no_more(tmp_path):
    file = written(tmp_path, "ids.yaml", FORMS["ids in a mapping"][1])
    config = LabelConfig(source="a", out="b", classes=file)  # pyright: ignore[reportArgumentType]
    Path(file).unlink()
    again = LabelConfig.model_validate(config.model_dump(mode="json"))
    assert again.classes == config.classes == WITH_IDS


def test_a_single_class_that_is_called_like_a_file_stays_one(tmp_path):
    file = written(tmp_path, "one.txt", "door/gate\n")
    config = LabelConfig(source="a", out="b", classes=file)  # pyright: ignore[reportArgumentType]
    assert vocabulary_of(LabelConfig.model_validate(config.model_dump()).classes).names == ("door/gate",)


def test_a_known_card_gives_its_names_captions_and_ids():
    voc = vocabulary_of(classes_of(["@voc21"]))
    card = load_card("voc21")
    assert (voc.names, [own[0] for own in voc.prompts], voc.ids) == (card.names, list(card.captions), None)
    coco = vocabulary_of(classes_of(["@coco-object"]))
    assert (coco.names[-1], coco.ids and coco.ids[-1]) == ("toothbrush", 90)


@pytest.mark.parametrize("name", [name for name in available_cards() if name != "folder"])
def test_every_card_with_classes_serves_label(name):
    assert vocabulary_of(classes_of([f"@{name}"])).names == load_card(name).names


def test_a_card_of_ones_own_gives_colours_and_may_extend_another(tmp_path):
    own = "name: mine\npalette: ['#000000', '#010203', '#040506']\nclasses: [{name: tv, caption: tv monitor}, cat]\n"
    assert classes_of([written(tmp_path, "mine.yaml", own)]) == (
        OwnClass(name="tv", prompts=("tv monitor",), colour="#010203"),
        OwnClass(name="cat", colour="#040506"),
    )
    assert classes_of([written(tmp_path, "more.yaml", "name: more\nextends: voc20\n")]) == classes_of(["@voc20"])


def test_without_ids_classes_are_counted_and_queries_are_not():
    classes = ["cat", {"name": "sky", "background": True}, "dog"]
    assert vocabulary_of(classes_of(classes)).ids == (1, 0, 2)
    assert vocabulary_of(["cat", "dog"]).ids is None
    assert vocabulary_of(classes_of([{"name": "cat", "id": 1}, {"name": "dog", "id": 2}])).ids is None


WRONG = {
    "the same id twice": (
        "a.csv",
        "name,id\ncat,7\ndog,7\n",
        "a.csv', line 3: id '7' is given twice, before it in line 2",
    ),
    "id 0": ("a.yaml", "cat: {id: 0}", "a.yaml', class 1: the id 0 is background; ids are 1 to 65534"),
    "id 65535": ("a.yaml", "cat: {id: 65535}", "the id 65535 fits no mask, and 65535 is void; ids are 1 to 65534"),
    "id 65536": ("a.csv", "name,id\ncat,65536\n", "line 2: the id 65536 fits no mask; ids are 1 to 65534"),
    "a negative id": ("a.csv", "name,id\ncat,-1\n", "the id -1 fits no mask"),
    "an id that is a word": ("a.csv", "name,id\ncat,seven\n", "line 2: the id 'seven' is no integer"),
    "an id that is half": ("a.yaml", "cat: {id: 7.5}", "the id 7.5 is no integer"),
    "an id that is true": ("a.yaml", "cat: {id: true}", "the id True is no integer"),
    "ids of some": (
        "a.yaml",
        "cat: {id: 7}\ndog:\n",
        "class 2: 'dog' has no id, and others have; give all of them ids",
    ),
    "an id of a query": (
        "a.yaml",
        "cat:\nsky: {id: 7, background: true}",
        "'sky' is a background query, which becomes 0",
    ),
    "nothing": ("a.txt", "", "class file .*a.txt': there is no class in it"),
    "comments alone": ("a.txt", "# cat\n\n", "there is no class in it"),
    "no row": ("a.csv", "name,id\n", "there is no class in it"),
    "an empty csv": ("a.csv", "\n\n", "there is no class in it"),
    "an empty yaml": ("a.yaml", "# nothing\n", "there is no class in it"),
    "queries alone": ("a.txt", "background: sky\n", "there is no class but background queries"),
    "a name twice": ("a.txt", "cat\ndog\nCat\n", "line 3: class 'Cat' is given twice, before it in line 1"),
    "a prompt twice": (
        "a.txt",
        "cat: cat, pet\ndog: dog, Pet\n",
        "line 2: prompt 'Pet' is given twice, before it in line 1",
    ),
    "a key twice": ("a.yaml", "cat: kitten\ndog:\ncat: tomcat\n", "a.yaml', line 3: 'cat' is given twice"),
    "latin-1": ("a.txt", "Äpfel\n".encode("latin-1"), "is not UTF-8 text: .* save it as UTF-8"),
    "a bad colour": ("a.csv", "name,colour\ncat,red\n", "line 2: the colour 'red' is not of the form '#ff8800'"),
    "a short colour": ("a.yaml", "cat: {colour: '#f80'}", "the colour '#f80' is not of the form"),
    "a colour that is a comment": (
        "a.yaml",
        "cat:\n  colour: #ff8800\n",
        "the colour is empty; in YAML it stands in quotes",
    ),
    "an unknown key": (
        "a.yaml",
        "- {name: cat, nick: kitty}",
        "class 1: unknown key 'nick'; a class has name, prompts, id, colour or background",
    ),
    "an unknown key of a card": (
        "a.yaml",
        "clases: 3\nclasses: [cat]",
        "unknown key 'clases'; beside classes there may be what a dataset card has",
    ),
    "two words for one thing": ("a.yaml", "- {name: cat, label: cat}", "name is given twice, as name or label"),
    "no name": ("a.yaml", "- {id: 7}", "class 1: the class has no name"),
    "no column of names": (
        "a.csv",
        "id,title\n7,cat\n",
        "a.csv' has no column name \\(or label\\); its first line is id, title",
    ),
    "an unknown column": ("a.csv", "name,nick\ncat,kitty\n", "unknown column 'nick'; there may be name, prompts"),
    "a column twice": ("a.csv", "name,id,id\ncat,7,7\n", "has the column 'id' twice"),
    "too many cells": (
        "a.csv",
        "name,id\nhot, dog,7\n",
        "line 2: 3 cells under 2 columns; put a cell with commas in quotes",
    ),
    "an open quote": ("a.csv", 'name,id\n"cat,7\n', "is no CSV"),
    "an empty name": ("a.csv", "name,id\n,7\n", "line 2: the name is empty"),
    "no prompt behind a colon": ("a.txt", "cat:\n", "line 1: there is no prompt behind 'cat:'; leave out the colon"),
    "an address": ("a.txt", "cat\nhttp://foo\n", "line 2: 'http://foo' is an address, no class with its prompts"),
    "an empty prompt": ("a.txt", "cat: kitten,,\n", "line 1: the prompt is empty"),
    "an escape": ("a.txt", "cat\x1b[2J\n", "line 1: the name holds the control character U\\+001B; take it out"),
    "an override": ("a.yaml", 'cat: "kit\\u202eten"', "the prompt holds the control character U\\+202E"),
    "a new line": ("a.yaml", '- "cat\\ndog"', "the name holds the control character U\\+000A"),
    "no letter": (
        "a.txt",
        "cat: ---\n",
        "line 1: class 'cat' has a prompt that no tokenizer reads, without letter or number: '---'",
    ),
    "a long prompt": (
        "a.txt",
        f"cat: {'kitten ' * 60}\n",
        "class 'cat' has a prompt of 419 characters, more than text encoders read",
    ),
    "background without prompts": (
        "a.txt",
        "cat\nbackground\n",
        "line 2: 'background' is label 0 already; leave it out, or give it prompts",
    ),
    "a colour of background": (
        "a.yaml",
        "cat:\nbackground: {prompts: sky, colour: '#ffffff'}",
        "background is label 0 and black: leave out its colour",
    ),
    "background that is a word": ("a.csv", "name,background\ncat,perhaps\n", "background is yes or no, not 'perhaps'"),
    "a number for a name": ("a.yaml", "1: cat", "class 1: the name 1 is no text; write it in quotes"),
    "yes for a name": ("a.yaml", "- yes\n", "class 1: True is no class"),
    "a number for prompts": ("a.yaml", "cat: 7", "prompts are a text or a list of texts, not 7"),
    "no yaml": ("a.yaml", "cat: [", "a.yaml' is no YAML"),
    "a text for a list": ("a.yaml", "cat", "is neither a list of classes nor a mapping"),
    "tags": ("a.yaml", "!!python/object/apply:os.system [true]", "is no YAML"),
    "deep": ("a.yaml", "[" * 5000, "is no YAML"),
    "caption and prompts": (
        "a.yaml",
        "classes: [{name: cat, caption: a cat, prompts: [pet]}]",
        "caption and prompts are one thing",
    ),
    "classes elsewhere": ("a.yaml", "classes_file: names.txt", "has its classes in 'names.txt': give that file"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_file_is_one_line(case, tmp_path):
    name, text, message = WRONG[case]
    with pytest.raises(ClassNameError, match=message) as caught:
        classes_of([written(tmp_path, name, text)])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize("name", ["nothing.txt", "nothing.CSV", "here/nothing", "nothing.yml"])
def test_a_file_that_is_not_there_is_no_class(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ClassNameError, match=f"class file '{name}' does not exist"):
        LabelConfig(source="a", out="b", classes=(name,))


def test_a_folder_a_huge_file_and_a_file_among_names_are_refused(tmp_path):
    with pytest.raises(ClassNameError, match="is a folder; name a file in it"):
        classes_of([str(tmp_path)])
    with pytest.raises(ClassNameError, match="has over 16 MiB: it is no list of classes"):
        classes_of([written(tmp_path, "huge.txt", b"x\n" * 2**23 + b"x")])
    with pytest.raises(ClassNameError, match=r"'pets.txt' is a file or card of classes, and stands among names"):
        classes_of(["cat", "pets.txt"])


def test_cards_that_are_not_there_or_have_no_classes_are_refused():
    with pytest.raises(UnknownNameError, match="unknown dataset 'voc22'; did you mean 'voc2"):
        classes_of(["@voc22"])
    with pytest.raises(ClassNameError, match="dataset folder has its classes in a file of its folder: give that file"):
        classes_of("@folder")


def test_more_classes_than_masks_hold_are_refused(tmp_path):
    with pytest.raises(ClassNameError, match="65535 classes are too many, 65534 at most"):
        classes_of([written(tmp_path, "many.txt", "".join(f"c{i}\n" for i in range(65_535)))])


@pytest.mark.slow
def test_as_many_classes_as_masks_hold_are_read(tmp_path):
    file = written(tmp_path, "most.txt", "".join(f"c{i}\n" for i in range(65_534)))
    most = vocabulary_of(classes_of([file]))
    assert load_card("folder").with_classes(most.entries).names == most.names


@pytest.mark.parametrize("classes", ["cat", 7, {"cat": 1}, [7], []])
def test_what_is_no_list_of_classes_is_said_by_the_configuration(classes: Any):
    with pytest.raises((ValidationError, PnpError)):
        LabelConfig(source="a", out="b", classes=classes)
