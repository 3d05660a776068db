"""Tables from records and scores written by hand: every number can be checked by eye."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pnp_core.config import EvalConfig
from pnp_core.errors import CorruptRunError, ForeignFilesError, UsageError
from pnp_core.frozen import merge
from pnp_core.runs.record import ModelShape
from pnp_core.tables.build import build_tables, describe
from pnp_core.tables.evaluations import Facts, gaps, read_evaluations, setting_key, without_scores
from pnp_core.tables.render import write_tables
from pnp_core.tables.studies import STUDIES

FACTS = Facts(model=ModelShape(layers=2, heads=2), subsets={}, default_split="test", identity="")


def config(out: Path, **changes) -> EvalConfig:
    return EvalConfig.model_validate(merge({"out": str(out)}, changes))


def put(out: Path, name: str, setting: EvalConfig, miou: float | None, main=False, **changes) -> None:
    """An evaluation as `write_run_record` leaves it."""
    images = setting.limit or 200
    record = {
        "config": setting.model_dump(mode="json"),
        "commit": "c0ffee",
        "weights_revision": "w1",
        "model": {"layers": 2, "heads": 2},
        "card": {
            "name": setting.dataset,
            "version": 2,
            "split": setting.split or "test",
            "default_split": "test",
            "images": 200,
            "subsets": {},
        },
        "stages": {"salience": 1, "masks": 1, "scores": 1},
        "evaluation": name,
        "device": "cpu",
        "memory": {"host": 1_250_000_000},
        "rates": {"salience": 5.0, "masks": None},
        "summary": {"images": images, "labelled": images, "quarantined": 0, "failed": 0, "masks": "masks/m"},
        "versions": {},
        "classes": ["heart"],
        "palette": ["#000000", "#800000"],
        "fingerprints": {"salience": "s", "masks": "m", "scores": name},
    }
    folder = out / "evaluations" / name
    folder.mkdir(parents=True)
    for place in [folder, out] if main else [folder]:
        (place / "run.json").write_text(json.dumps(merge(record, changes)))
        if miou is not None:
            (place / "scores.json").write_text(json.dumps({"miou": miou, "images_scored": images}))


LADDER = [0.1, 0.2, 0.3, 0.4, 0.5]


@pytest.fixture
def run(tmp_path) -> Path:
    """A base run and the whole ablation: mIoU 0.1 to 0.5, the base itself last."""
    out = tmp_path / "runs/scenes"
    variants = list(STUDIES["ablation"].variants(config(out), FACTS))
    for number, (variant, miou) in enumerate(zip(variants, LADDER, strict=True)):
        put(out, f"e{number}", variant.config, miou, main=variant.config == config(out))
    return out


def tables_of(*runs: Path, out: Path) -> dict[str, bytes]:
    write_tables(build_tables(read_evaluations([str(run) for run in runs])), str(out))
    return {file.name: file.read_bytes() for file in out.iterdir() if file.is_file()}


def cells(out: Path, name: str) -> dict[tuple[str, str], dict[str, str]]:
    rows = csv.DictReader((out / f"{name}.csv").open(encoding="utf-8"))
    return {(row["row"], row["column"]): row for row in rows}


def test_hand_written_ablation_is_in_the_table(run, tmp_path):
    files = tables_of(run, out=tmp_path / "out")
    found = cells(tmp_path / "out", "ablation")
    assert [row for row, _ in found] == [
        "attention",
        "attention x gradient (GradCAM)",
        "with Salience DropOut",
        "with blur",
        "with dense CRF",
    ]
    assert [float(cell["value"]) for cell in found.values()] == LADDER
    last = list(found.values())[-1]
    facts = {"run": "scenes", "commit": "c0ffee", "weights": "tiny@w1", "images": "200", "partial": "", "text": "50.0"}
    assert facts.items() <= last.items()
    assert set(files) >= {"tables.md", "index.html", "tables.json", "main.tex", "ablation.tex"}
    assert b"with blur" in files["ablation.tex"]
    assert rb"\toprule" in files["ablation.tex"]


def test_main_table_puts_ours_beside_the_published_numbers(run, tmp_path):
    tables_of(run, out=tmp_path / "out")
    found = cells(tmp_path / "out", "main")
    assert found["PnP-OVSS blip tiny, 96 px, labels", "scenes"]["text"] == "50.0"
    assert found["PnP-OVSS (published)", "voc21"]["text"] == "51.3"
    assert found["NACLIP with PAMR (published)", "context59"]["text"] == "38.4"
    assert ("PnP-OVSS (published)", "scenes") not in found


def test_speed_table_has_what_was_measured(run, tmp_path):
    tables_of(run, out=tmp_path / "out")
    found = {column: cell["text"] for (_, column), cell in cells(tmp_path / "out", "speed").items()}
    assert found == {
        "device": "cpu",
        "salience, pictures/s": "5",
        "masks, pictures/s": "-",
        "memory, GB": "1.25",
        "GPU memory, GB": "-",
    }


def test_tables_made_twice_are_byte_identical(run, tmp_path):
    assert tables_of(run, out=tmp_path / "one") == tables_of(run, out=tmp_path / "two")


def test_deleted_score_changes_its_cells_and_nothing_else(run, tmp_path):
    before = tables_of(run, out=tmp_path / "out")
    was = {name: cells(tmp_path / "out", name) for name in ("main", "ablation", "speed")}
    (run / "evaluations/e3/scores.json").unlink()
    after = tables_of(run, out=tmp_path / "out")
    assert set(before) == set(after)
    changed = {
        (name, place)
        for name in was
        for place, cell in cells(tmp_path / "out", name).items()
        if (cell["text"], cell["value"]) != (was[name][place]["text"], was[name][place]["value"])
    }
    column = "scenes: PnP-OVSS blip tiny, 96 px, labels"
    assert changed == {("ablation", ("with blur", column))}
    assert cells(tmp_path / "out", "ablation")["with blur", column]["text"] == "-"
    assert after["main.csv"] == before["main.csv"]
    lines = zip(before["tables.md"].splitlines(), after["tables.md"].splitlines(), strict=True)
    assert sum(a != b for a, b in lines) == 2  # its cell, and its source, which says that scores are missing


def test_partial_run_is_marked_and_never_averaged_with_a_whole_one(run, tmp_path):
    other = tmp_path / "runs/part"
    put(other, "p", config(other, limit=20), 0.9, main=True)
    quarantined = tmp_path / "runs/holes"
    put(quarantined, "q", config(quarantined), 0.7, main=True, summary={"quarantined": 3})
    tables_of(run, other, quarantined, out=tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out/main.csv").open(encoding="utf-8")))
    ours = {row["run"]: (row["text"], row["partial"]) for row in rows if row["column"] == "scenes"}
    assert ours == {
        "scenes": ("50.0", ""),
        "part": ("90.0†", "the first 20 pictures only"),
        "holes": ("70.0†", "3 of 200 pictures quarantined"),
    }
    assert " / " in (tmp_path / "out/tables.md").read_text()


def test_settings_that_mean_the_same_are_one(tmp_path):
    """A run's own evaluation stands in its column; another run's only where it has none."""
    out, other = tmp_path / "run", tmp_path / "other"
    put(out, "base", config(out), 0.5, main=True)
    put(out, "two", config(out, masks={"passes": 2}), 0.4)
    # One pass of several, and salience with one iteration: the same.
    put(other, "one", config(other, salience={"dropout": {"iterations": 1}}), 0.3, main=True)
    put(other, "two", config(other, masks={"passes": 2}), 0.9)
    tables_of(out, other, out=tmp_path / "tables")
    rows = list(csv.DictReader((tmp_path / "tables/iterations.csv").open(encoding="utf-8")))
    found = [(row["row"], row["run"], row["value"]) for row in rows]
    assert found == [("1", "other", "0.3"), ("2", "run", "0.4"), ("4", "run", "0.5")]


def test_one_pass_drops_nothing_and_has_no_strategies(tmp_path):
    one = config(tmp_path / "run", masks={"passes": 1})
    assert list(STUDIES["strategies"].variants(one, FACTS)) == []
    rows = [variant.row for variant in STUDIES["ablation"].variants(one, FACTS)]
    assert "with Salience DropOut" not in rows
    assert rows[0] == "attention"


def test_every_setting_of_every_study_is_one_that_can_run(tmp_path):
    from pnp_core.runs.plan import plan_eval

    base = config(tmp_path, masks={"passes": 2}, salience={"backbone": {"image_size": 1600}})
    facts = replace(FACTS, subsets={"some": ("car",)})
    for study in STUDIES.values():
        variants = list(study.variants(base, facts))
        assert len({(variant.row, variant.column) for variant in variants}) == len(variants) > 0
        for variant in variants:
            assert plan_eval(variant.config).score


def test_unknown_size_of_a_split_makes_a_limit_partial(tmp_path):
    out = tmp_path / "run"
    put(out, "base", config(out, limit=20), 0.5, main=True, card={"images": None})
    (found,) = read_evaluations([str(out)])
    assert found.partial == "limited to 20 pictures"


def test_a_copy_with_fewer_pictures_than_the_split_has_is_a_part(tmp_path):
    part, whole, more = (tmp_path / name for name in ("part", "whole", "more"))
    few = {"images": 38, "labelled": 38}
    put(part, "p", config(part, dataset="voc21"), 0.5, main=True, card={"images": 1449}, summary=few)
    put(whole, "w", config(whole, dataset="voc21"), 0.5, main=True, card={"images": 200})
    put(more, "m", config(more, limit=300), 0.5, main=True)
    tables_of(part, whole, more, out=tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out/main.csv").open(encoding="utf-8")))
    ours = {row["run"]: (row["text"], row["partial"]) for row in rows if row["run"] in ("part", "whole", "more")}
    assert ours == {"part": ("50.0†", "38 of 1449 pictures"), "whole": ("50.0", ""), "more": ("50.0", "")}
    assert "† 38 of 1449 pictures" in (tmp_path / "out/tables.md").read_text()


def test_a_class_subset_is_a_part_where_pictures_were_missing_not_where_it_has_fewer(tmp_path):
    found = {}
    for name, there in (("all", 200), ("some", 20), ("before", None)):
        out, few = tmp_path / name, {"images": 12, "labelled": 12}
        card = {} if there is None else {"listed": there}
        put(out, name, config(out, only_classes=["heart"]), 0.5, main=True, card=card, summary=few)
        found[name] = read_evaluations([str(out)])[0].partial
    assert found == {"all": "", "some": "20 of 200 pictures", "before": ""}


def test_tables_tell_in_whose_words_the_captions_were_and_what_became_of_ties(tmp_path):
    values = {"preset": "authors", "dataset": "voc21"}
    theirs, natural, old = (tmp_path / name for name in ("theirs", "natural", "old"))
    put(theirs, "a", config(theirs, **values), 0.5, main=True, card={"renamed": 3})
    put(natural, "b", config(natural, **values, salience={"words": "natural"}), 0.4, main=True, card={"renamed": 3})
    put(old, "c", config(old, **values), 0.4, main=True)
    for file in old.rglob("run.json"):  # of a version before there were words and ties
        record = json.loads(file.read_text())
        del record["config"]["salience"]["words"], record["config"]["masks"]["ties"]
        file.write_text(json.dumps(record))
    found = read_evaluations([str(theirs), str(natural), str(old)])
    told = [("the authors' words for 3 classes" in text, "ties kept" in text) for text in map(describe, found)]
    assert told == [(True, True), (False, True), (False, False)]
    assert len({evaluation.key for evaluation in found}) == 3
    same = [config(old, **values, salience={"words": words}) for words in ("authors", "natural")]
    assert len({setting_key(setting, FACTS) for setting in same}) == 1, "a card without other words has one caption"
    assert len({setting_key(setting, replace(FACTS, renamed=3)) for setting in same}) == 2


def test_folder_with_files_of_the_same_names_is_not_overwritten(run, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/tables.md").write_text("mine")
    with pytest.raises(ForeignFilesError, match=r"is not empty \('tables\.md'\)"):
        tables_of(run, out=tmp_path / "docs")
    assert (tmp_path / "docs/tables.md").read_text() == "mine"


def test_runs_that_lost_something_are_named(run, tmp_path):
    (run / "evaluations/e1/scores.json").unlink()
    (run / "run.json").unlink()
    found = gaps(read_evaluations([str(run)]))
    assert found == [
        "1 evaluations of run scenes have lost their scores",
        "run scenes has no run.json: it is in no table of its own",
    ]
    labelled = tmp_path / "labelled"
    labelled.mkdir()
    (labelled / "run.json").write_text("{}")
    assert without_scores([str(run), str(labelled)]) == [str(labelled)]


def test_heat_map_has_a_row_per_layer_and_a_column_per_head(tmp_path):
    out = tmp_path / "run"
    deeper = replace(FACTS, model=ModelShape(layers=3, heads=2))
    for number, variant in enumerate(STUDIES["layers"].variants(config(out), deeper)):
        base = (variant.row, variant.column) == ("0", "1")
        put(out, f"l{number}", variant.config, number / 10, main=base, model={"layers": 3, "heads": 2})
    tables_of(out, out=tmp_path / "tables")
    found = cells(tmp_path / "tables", "layers")
    assert {place: cell["value"] for place, cell in found.items()} == {
        ("0", "0"): "0.0",
        ("0", "1"): "0.1",
        ("1", "0"): "0.2",
        ("1", "1"): "0.3",
    }
    page = (tmp_path / "tables/index.html").read_text()
    assert page.count('class="s0"') == page.count('class="s9"') == 1


def test_tables_that_are_no_more_go(run, tmp_path):
    tables_of(run, out=tmp_path / "out")
    (tmp_path / "out/mine.csv").write_text("mine")
    for number in range(4):
        shutil.rmtree(run / f"evaluations/e{number}")
    files = tables_of(run, out=tmp_path / "out")
    assert "ablation.csv" not in files
    assert "mine.csv" in files


def test_names_from_data_are_text_in_every_format(tmp_path):
    out = tmp_path / "<img src=x onerror=alert(1)>&|_%.{}"
    put(out, "x", config(out), 0.5, main=True, commit='=HYPERLINK("x")')
    files = tables_of(out, out=tmp_path / "out")
    assert b"<img" not in files["index.html"]
    assert rb"\<img src=x onerror=alert(1)\>&amp;\|\_%.{}" in files["tables.md"]
    assert b"'=HYPERLINK" in files["main.csv"]


def test_folder_without_scores_is_one_clear_error(tmp_path, run):
    with pytest.raises(UsageError, match="holds no finished evaluation: `pnp-ovss eval DATASET"):
        read_evaluations([str(run), str(tmp_path)])
    with pytest.raises(UsageError, match="named twice"):
        read_evaluations([str(run), str(run)])


def test_record_of_another_version_is_named(run):
    place = run / "evaluations/e2/run.json"
    record = json.loads(place.read_text())
    record["config"]["masks"]["sharpen"] = 1
    place.write_text(json.dumps(record))
    with pytest.raises(CorruptRunError, match=r"evaluations/e2/run\.json' is damaged or was made by another version"):
        read_evaluations([str(run)])


@pytest.mark.parametrize(
    "method",
    [
        {"name": "classify", "proposals": "runs/plain"},
        {"name": "ensemble", "runs": ["runs/plain"]},
        {"name": "naclip"},
        {"name": "car"},
    ],
)
def test_studies_of_another_method_vary_only_what_it_has(method):
    base = EvalConfig.model_validate({"out": "x", "method": method})
    facts = Facts(model=None, subsets={}, default_split="test", identity="x")
    varying = {name for name, study in STUDIES.items() if list(study.variants(base, facts))}
    assert varying == ({"thresholds"} if method["name"] in ("naclip", "car") else set())
