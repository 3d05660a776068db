"""Run folders of commands where no --out is given: below `runs`, named by the command and what it works on."""

from __future__ import annotations

import os
import re
from pathlib import PurePosixPath


def eval_out(dataset: str) -> str:
    """Run folder of `eval` and `ablate`: one for both, since tables are made of all that is in it.

    >>> eval_out("voc21"), tune_out("cards/mine.yaml")
    ('runs/eval-voc21', 'runs/tune-mine')
    """
    return f"runs/eval-{_name(dataset)}"


def tune_out(dataset: str) -> str:
    """Run folder of `tune`."""
    return f"runs/tune-{_name(dataset)}"


def label_out(source: str) -> str:
    """Run folder of `label`, by the last name of the source that is no pattern.

    Sources of one name share it: the second one is refused there, as in every folder that is of other pictures.

    >>> [label_out(source) for source in ("photos/", "s3://bucket/my%20cats", "list.txt", "data/*.parquet", "/")]
    ['runs/label-photos', 'runs/label-my_20cats', 'runs/label-list', 'runs/label-data', 'runs/label-images']
    """
    path = source if "://" in source else os.path.abspath(os.path.expanduser(source))  # noqa: PTH100, PTH111
    names = [name for name in path.split("/") if name and not set(name) & set("*?[{")]
    return f"runs/label-{_name(names[-1] if names else '')}"


def redo_out(run: str) -> str:
    """Run folder of `label --redo`: beside the run.

    >>> redo_out("runs/label-photos/"), redo_out("s3://bucket/run")
    ('runs/label-photos-redo', 's3://bucket/run-redo')
    """
    return f"{run.rstrip('/')}-redo"


def corpus_out(source: str) -> str:
    """Run folder of `label-corpus`, named as that of `label`.

    >>> corpus_out("s3://bucket/camera/")
    'runs/label-corpus-camera'
    """
    return label_out(source).replace("label-", "label-corpus-", 1)


def _name(path: str) -> str:
    """The last name of a path without its ending, such as a card's, fit for a folder anywhere."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", PurePosixPath(path).stem)[:100] or "images"
