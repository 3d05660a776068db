"""Links in a folder of pictures: whoever may write there must not choose what else on the disk is read."""

from __future__ import annotations

import os
from collections import Counter

LINKS = "link that leaves the folder"
"""Under which name such links are counted."""
REFUSED = f"{LINKS}: what it leads to is read with --follow-links only"


def leaves(root: str, path: str) -> bool:
    """Whether a path is a link, broken or not, whose target is not below a folder.

    Args:
        root: without links itself.
    """
    return os.path.islink(path) and not _below(root, os.path.realpath(path))  # noqa: PTH114 - surrogates


def _below(root: str, real: str) -> bool:
    return real.startswith(f"{root.rstrip('/')}/")


def open_below(root: str, path: str) -> int | None:
    """Open a file for reading that lies below a folder after all its links; None when it does not.

    It cannot be tricked by a link that is put in place meanwhile: of the path that was looked at no part is
    followed. It does not wait for a pipe.

    Args:
        root: without links itself.

    Raises:
        OSError: it cannot be opened, or was swapped for a link.
    """
    real = os.path.realpath(path)
    if not _below(root, real):
        return None
    *folders, name = os.path.relpath(real, root).split("/")
    opened = os.open(root, _FOLDER)
    try:
        for folder in folders:
            deeper = os.open(folder, _FOLDER | os.O_NOFOLLOW, dir_fd=opened)
            os.close(opened)
            opened = deeper
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=opened)
    finally:
        os.close(opened)


# O_PATH, where there is one, needs no permission to list the folders on the way.
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC


EXCLUDED = "left out by --exclude"
"""Under which name files and folders that patterns leave out are counted."""
MADE = "made by a file server: "
"""With what the names of folders begin that file servers make, where they are counted."""


def passed_over(ignored: Counter[str]) -> list[str]:
    """Warnings about what of a source was passed over.

    >>> passed_over(Counter({".txt": 2, LINKS: 1}))[1]
    '1 links that leave the folder passed over (--follow-links reads what they lead to)'
    """
    others = no_images(ignored)
    warnings = (
        [f"{others.total()} files passed over because they are no pictures ({_counts(others)})"] if others else []
    )
    return warnings + left_out(ignored) + links_passed_over(ignored[LINKS])


def no_images(ignored: Counter[str]) -> Counter[str]:
    """Of what was passed over the files that are no pictures."""
    return Counter({why: n for why, n in ignored.items() if why not in (LINKS, EXCLUDED) and not why.startswith(MADE)})


def left_out(ignored: Counter[str]) -> list[str]:
    """Warnings about pictures that are there and were left out: by a pattern, or in a file server's folders.

    >>> left_out(Counter({f"{MADE}@eaDir": 2, ".txt": 1}))
    ['2 folders that file servers make passed over (@eaDir x2)']
    """
    made = Counter({why.removeprefix(MADE): n for why, n in ignored.items() if why.startswith(MADE)})
    warnings = [f"{made.total()} folders that file servers make passed over ({_counts(made)})"] if made else []
    return warnings + [f"{ignored[EXCLUDED]} files and folders {EXCLUDED}"] * (ignored[EXCLUDED] > 0)


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} x{number}" for name, number in counts.most_common(5))


def links_passed_over(number: int) -> list[str]:
    """A warning about links that were not followed."""
    return [f"{number} links that leave the folder passed over (--follow-links reads what they lead to)"] * (number > 0)
