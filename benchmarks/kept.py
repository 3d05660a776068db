"""Are run folders of an earlier commit still good: resumed with nothing computed again, the same bytes in them?

    uv run python -m benchmarks.kept make FOLDER      # at the earlier commit
    uv run python -m benchmarks.kept resume FOLDER    # at the later one; ends with 1 when something was computed again

Real commands in processes of their own: the demo, `label` and `label-corpus` on photographs, `tune`, `tables`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PHOTOGRAPHS = ROOT / "pnp_core" / "_photographs"
KEPT = "kept.json"
STAGES = ("shards", "salience", "masks", "scores", "quarantine", "cache", "trials", "contents", "manifests")
"""Folders of results; the rest (reports, records of runs) may be written anew."""


@dataclass(frozen=True)
class Stored:
    """A file as a run left it."""

    digest: str
    written: int
    """When, nanoseconds."""


def commands(folder: Path, images: Path) -> dict[str, list[str]]:
    """What is run, by the name of its output."""
    classes = "cat,person,rocket,cup"
    return {
        "demo": ["demo"],
        "label": ["label", str(images), "--classes", classes, "--png", "--confidence"],
        "corpus": ["label-corpus", str(folder / "growing"), "--classes", classes, "--settle", "0"],
        "tune": ["tune", "scenes", "--images", "16", "--trials", "24", "--reward", "contrast"],
        "tables": ["tables", str(folder / "demo")],
    }


def run_all(folder: Path, images: Path) -> None:
    """Run every command, or run it again."""
    for name, command in commands(folder, images).items():
        print(f"{name} ...", flush=True)
        pnp_ovss = [sys.executable, "-m", "flows.cli", *command, "--out", str(folder / name)]
        subprocess.run(  # noqa: S603
            pnp_ovss, cwd=ROOT, check=True, stdout=subprocess.DEVNULL
        )


def stored(folder: Path) -> dict[str, Stored]:
    """Every file of results, and of tables, by its path."""
    found = {}
    for file in sorted(folder.rglob("*")):
        parts = file.relative_to(folder).parts
        if file.is_file() and (parts[0] == "tables" or not {*parts}.isdisjoint(STAGES)):
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            found[str(file.relative_to(folder))] = Stored(digest, file.stat().st_mtime_ns)
    return found


def make(folder: Path, images: Path) -> None:
    """Run the commands in a new folder and keep what their files are."""
    (folder / "growing").mkdir(parents=True)
    for file in sorted(images.glob("*.jpg"))[:40]:
        shutil.copy(file, folder / "growing")
    run_all(folder, images)
    kept = {name: [file.digest, file.written] for name, file in stored(folder).items()}
    (folder / KEPT).write_text(json.dumps(kept))
    print(f"{len(kept)} files of results")


def resume(folder: Path, images: Path) -> bool:
    """Run them again; whether every file of results is as it was, and none was written again but tables."""
    before = {name: Stored(*kept) for name, kept in json.loads((folder / KEPT).read_text()).items()}
    run_all(folder, images)
    after = stored(folder)
    added, gone = sorted(after.keys() - before.keys()), sorted(before.keys() - after.keys())
    both = sorted(before.keys() & after.keys())
    changed = [name for name in both if before[name].digest != after[name].digest]
    again = [n for n in both if before[n].written != after[n].written and not n.startswith("tables/")]
    for what, names in {"new": added, "gone": gone, "changed": changed, "written again": again}.items():
        print(f"{what}: {len(names)} {' '.join(names[:8])}")
    print(f"{len(both) - len(changed)} of {len(before)} files are the same bytes")
    return not (added or gone or changed or again)


def main() -> int:
    """Make or resume."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "resume"))
    parser.add_argument("folder", type=lambda text: Path(text).resolve())
    parser.add_argument("--images", type=lambda text: Path(text).resolve(), default=PHOTOGRAPHS)
    options = parser.parse_args()
    if options.what == "make":
        make(options.folder, options.images)
        return 0
    return 0 if resume(options.folder, options.images) else 1


if __name__ == "__main__":
    sys.exit(main())
