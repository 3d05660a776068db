"""Data roots: which counts, where they are kept, what is said of those that are wrong."""

from pathlib import Path

import pytest
from platformdirs import user_config_path

from pnp_core.errors import DatasetError, OutputError, UnknownNameError, UsageError
from pnp_core.inputs.cards import load_card
from pnp_core.inputs.roots import data_of, known_roots, root_of, set_root, settings_file, unset_root


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder that may be a dataset's."""
    folder = tmp_path / "VOCdevkit"
    folder.mkdir()
    return folder


def test_file_lies_in_the_platforms_folder_or_where_the_variable_says(user_config, monkeypatch):
    assert settings_file() == user_config
    monkeypatch.delenv("PNP_OVSS_CONFIG")
    assert settings_file() == user_config_path("pnp-ovss") / "config.yaml"


def test_root_is_kept_absolute_with_what_else_the_file_holds(user_config, folder, monkeypatch):
    user_config.parent.mkdir()
    user_config.write_text("# mine\ndata:\n  ade20k: s3://bucket/ADE  # the bucket\n")
    monkeypatch.chdir(folder.parent)
    set_root("voc21", "VOCdevkit")
    text = f"# mine\ndata:\n  ade20k: s3://bucket/ADE  # the bucket\n  voc21: {folder}\n"
    assert user_config.read_text() == text
    assert {name: root.path for name, root in known_roots().items()} == {
        "ade20k": "s3://bucket/ADE",
        "voc21": str(folder),
    }
    unset_root("voc21")
    assert user_config.read_text() == text.replace(f"  voc21: {folder}\n", "")
    with pytest.raises(UsageError, match=r"data\.voc21 is not set in"):
        unset_root("voc21")
    assert [file.name for file in user_config.parent.iterdir()] == ["config.yaml"]


def test_file_that_is_a_link_stays_one(user_config, folder, tmp_path):
    user_config.parent.mkdir()
    (tmp_path / "dotfile.yaml").write_text("{}")
    user_config.symlink_to(tmp_path / "dotfile.yaml")
    set_root("voc21", str(folder))
    assert user_config.is_symlink()
    assert str(folder) in (tmp_path / "dotfile.yaml").read_text()


def test_given_counts_more_than_the_variable_and_that_more_than_the_file(user_config, folder, tmp_path, monkeypatch):
    assert data_of("voc21", None) is None
    set_root("voc21", str(folder))
    assert data_of("voc21", None) == str(folder)
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setenv("PNP_OVSS_DATA", f"voc21={other}, ade20k={folder}")
    assert data_of("voc21", None) == str(other)
    assert data_of("ade20k", None) == str(folder)
    assert data_of("voc21", "given") == "given"
    assert data_of("coco-stuff", None) is None


def test_variable_may_name_a_folder_of_datasets(folder, user_config, tmp_path, monkeypatch):
    set_root("voc21", str(folder))
    (tmp_path / "all" / "ade20k").mkdir(parents=True)
    (tmp_path / "all" / "notes").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PNP_OVSS_DATA", "all")
    assert known_roots().keys() == {"voc21", "ade20k"}
    assert data_of("ade20k", None) == str(tmp_path / "all" / "ade20k")


def test_card_lies_where_the_one_lies_that_it_extends(user_config, folder, tmp_path):
    set_root("voc21", str(folder))
    (tmp_path / "mine.yaml").write_text("extends: voc20\nname: mine\nversion: 1\ntitle: x\n")
    for dataset in ("voc20", str(tmp_path / "mine.yaml")):
        assert data_of(dataset, None) == str(folder)
    other = tmp_path / "other"
    other.mkdir()
    set_root("voc20", str(other))
    assert data_of(str(tmp_path / "mine.yaml"), None) == str(other)
    assert root_of("context60") is None


def test_drawn_dataset_has_no_root_and_asks_for_no_file(user_config, folder):
    user_config.parent.mkdir()
    user_config.write_text("[")
    assert data_of("scenes", None) is None
    assert data_of("voc21", "given") == "given"
    with pytest.raises(UsageError, match="is drawn, not read: it needs no folder"):
        set_root("scenes", str(folder))


def test_root_that_is_gone_says_who_names_it_and_what_to_do(user_config, folder, monkeypatch):
    set_root("voc21", str(folder))
    folder.rmdir()
    with pytest.raises(DatasetError) as told:
        data_of("voc20", None)
    assert str(told.value) == (
        f"data folder '{folder}' does not exist; voc21 needs the folder VOCdevkit; get it from "
        f"{load_card('voc21').homepage}; the configuration file '{user_config}' names this folder for voc21: "
        f"`pnp-ovss config set data.voc21 FOLDER`"
    )
    monkeypatch.setenv("PNP_OVSS_DATA", f"voc21={folder}")
    with pytest.raises(DatasetError, match="the variable PNP_OVSS_DATA names this folder for voc21: set PNP_OVSS_DATA"):
        data_of("voc21", None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "is not valid YAML"),
        ("- a", "must be a mapping like 'data: {voc21: /data/VOCdevkit}'"),
        ("data: 3", "': data: Input should be a valid dictionary"),
        ("data: {voc21: [a]}", "data.voc21: Input should be a valid string"),
        ("dta: {}", "dta: Extra inputs are not permitted"),
        ("data: {vok21: /x}", "unknown dataset in '.*': 'vok21'; did you mean 'voc21'?"),
        ("data: {voc21: VOCdevkit}", "data.voc21 is 'VOCdevkit', which is relative: `pnp-ovss config set data.voc21"),
    ],
)
def test_file_that_cannot_be_read_is_named_with_what_is_wrong(user_config, text, says):
    user_config.parent.mkdir()
    user_config.write_text(text)
    with pytest.raises(UsageError, match=says) as told:
        data_of("voc21", None)
    assert str(user_config) in str(told.value)


def test_file_that_is_damaged_is_not_written_over(user_config, folder):
    user_config.parent.mkdir()
    for text in ("[", "data: 3"):
        user_config.write_text(text)
        with pytest.raises(UsageError, match=str(user_config)):
            set_root("voc21", str(folder))
        assert user_config.read_text() == text
    user_config.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="is not UTF-8 text"):
        known_roots()


def test_file_that_cannot_be_written_is_one_line(user_config, folder):
    user_config.parent.write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot write '.*config\.yaml': "):
        set_root("voc21", str(folder))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("voc21", "PNP_OVSS_DATA names the folder 'voc21', which does not exist"),
        ("vok21=/x", "unknown dataset in PNP_OVSS_DATA: 'vok21'; did you mean 'voc21'?"),
        ("voc21=/x,ade20k", "'ade20k' is not of the form name=path"),
    ],
)
def test_variable_that_says_nothing_is_one_line(tmp_path, monkeypatch, given, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PNP_OVSS_DATA", given)
    with pytest.raises(UsageError, match=says.replace("?", r"\?")):
        known_roots()


def test_folder_or_card_that_is_not_there_is_not_kept(user_config, tmp_path):
    with pytest.raises(DatasetError, match="none' does not exist; voc21 needs the folder VOCdevkit"):
        set_root("voc21", str(tmp_path / "none"))
    with pytest.raises(UnknownNameError, match="did you mean 'voc21'"):
        set_root("vok21", str(tmp_path))
    assert not user_config.exists()
