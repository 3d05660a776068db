"""What is taken over of folders that versions before have written, or whose bookkeeping is damaged."""

import json

import pytest

from pnp_core.data import Sample
from pnp_core.errors import ForeignFilesError
from pnp_core.storage.files import MARK
from pnp_core.storage.ledger import LEDGER, Ledger, claim_files, drop_missing
from pnp_core.storage.ownership import FOLDER, claim, kind_of
from pnp_core.storage.run_folder import RunFolder
from pnp_core.storage.seals import json_bytes
from pnp_core.storage.shards import write_shards


@pytest.fixture(params=["local", "memory"])
def run(request, tmp_path) -> RunFolder:
    return RunFolder(str(tmp_path / "run") if request.param == "local" else f"memory://{tmp_path.name}/run")


def put(run: RunFolder, *names: str, data: bytes = b"mine") -> None:
    for name in names:
        run.put(name, data)


def forget(run: RunFolder) -> None:
    """As a version left it that had no bookkeeping."""
    for name in run.names(MARK):
        run.delete(name)


MINE = ("run.json", "best.yaml", "contact_sheet.png", "scores.json", "report/index.html", "notes.txt")


def test_of_old_tables_only_the_files_in_their_record_are_taken_over(run):
    put(run, "tables.md", "main.csv", *MINE)
    run.put("tables.json", json_bytes({"files": ["main.csv", "tables.json", "tables.md"]}))
    claim(run.url, "tables")
    assert sorted(Ledger.read(run).files) == ["main.csv", "tables.json", "tables.md"]


def test_of_an_old_run_only_what_looks_like_ours_is_taken_over(run):
    write_shards(run, [Sample("a", b"x", "png", "a.png")], [1], "me", "d")
    forget(run)
    put(run, *MINE[1:], "masks/mine/a.png", "masks/0123456789abcdef/000000.parquet")
    run.put("run.json", json_bytes({"fingerprints": {"masks": "0123456789abcdef", "scores": None}}))
    assert kind_of(run) == "run"
    claim(run.url, "run")
    ledger = Ledger.read(run)
    assert sorted(ledger.files) == ["contact_sheet.png", "run.json"]
    assert "masks/0123456789abcdef" in ledger.folders
    assert "masks/mine" not in ledger.folders
    run.remove("contact_sheet.png")  # nobody knows what was written to it
    assert run.get("contact_sheet.png") == b"mine"


def test_run_that_an_old_version_was_sharding_is_taken_over(run):
    write_shards(run, [Sample("a", b"x", "png", "a.png")], [1], "me", "d")
    forget(run)
    run.delete("shards/index.parquet")
    assert kind_of(run) == "run"
    forget(run)
    run.put("shards/000000.tar", b"no tar of ours")
    assert kind_of(run) is None


@pytest.mark.parametrize("damage", [b"", b"{}", bytes(40)])
def test_damaged_mark_keeps_the_list_of_what_is_ours(run, damage):
    claim(run.url, "run")
    run.write("report/index.html", b"page")
    write_shards(run, [Sample("a", b"x", "png", "a.png")], [1], "me", "d")
    run.put(FOLDER, damage)
    claim(run.url, "run")
    run.write("report/index.html", b"another page")
    assert kind_of(run) == "run"
    assert Ledger.read(run).files["report/index.html"]


def test_damaged_list_of_an_export_does_not_stop_the_next_one(run):
    claim(run.url, "export")
    for name in ("export.json", "index.csv"):
        run.write(name, json.dumps({"made_by": "pnp-ovss export"}).encode())
    run.put(LEDGER, b"{")
    claim(run.url, "export")
    run.write("export.json", b"{}")


@pytest.mark.parametrize(("page", "ours"), [(b"<p>PnP-OVSS comparison</p>", True), (b"somebody's", False)])
def test_damaged_list_of_a_comparison_takes_its_page_over(run, page, ours):
    claim(run.url, "comparison")
    run.write("index.html", page)
    run.write("compare.json", b"{}")
    run.put(LEDGER, b"{")
    claim(run.url, "comparison")
    assert ("index.html" in Ledger.read(run).files) is ours
    run.write("compare.json", b"{}")
    if ours:
        run.write("index.html", b"another page")
    else:
        with pytest.raises(ForeignFilesError):
            run.write("index.html", b"another page")
        assert run.get("index.html") == page


def test_name_that_nothing_was_written_to_is_forgotten(run):
    claim(run.url, "run")
    claim_files(run, {"tune.json": "0" * 64})
    run.write("run.json", b"{}")
    drop_missing(run)
    assert sorted(Ledger.read(run).files) == ["run.json"]
