"""The folder of an export: many files, of which it is always known which are ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pnp_core.errors import ForeignFilesError
from pnp_core.storage.files import MARK
from pnp_core.storage.ledger import LEDGER, Ledger, claim_files
from pnp_core.storage.run_folder import RunFolder
from pnp_core.storage.seals import json_bytes, sha256

FILES_AT_ONCE, BYTES_AT_ONCE = 64, 32 * 2**20
"""Files wait until there are so many, or have so many bytes, and are put into the ledger together."""
FILES_IN_A_LEDGER = 4096
BULK = f"{MARK}/files-*.json"
"""The numbered ledgers."""


class ExportFolder(RunFolder):
    """Files are written in blocks, and listed in numbered ledgers; `flush` writes those that still wait."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._waiting: dict[str, bytes] = {}
        self._bytes = self._written = 0

    def write(self, relative: str, data: bytes) -> None:
        """Write a file, some time before `flush` returns.

        Raises:
            ForeignFilesError: something is there that no export has written.
            OutputError: the file system refuses.
        """
        self._waiting[relative] = data
        self._bytes += len(data)
        if len(self._waiting) == FILES_AT_ONCE or self._bytes >= BYTES_AT_ONCE:
            self.flush()

    def write_json(self, relative: str, value: Any) -> None:
        """Write a record of the export at once."""
        super().write(relative, json_bytes(value))

    def flush(self) -> None:
        """Write the files that wait."""
        if not self._waiting:
            return
        digests = {path: sha256(data) for path, data in self._waiting.items()}
        claim_files(self, digests, f"{MARK}/files-{self._written // FILES_IN_A_LEDGER:06d}.json")
        for path, data in self._waiting.items():
            self.put(path, data)
        self._written += len(self._waiting)
        self._waiting, self._bytes = {}, 0

    def check_unchanged(self) -> None:
        """Find out whether what an export before has written is still that.

        Raises:
            ForeignFilesError: a file was changed, or the list of them is damaged.
        """
        for ledger in self.ledgers():
            for path, digests in ledger.files.items():
                data = self.find(path)
                if data is not None and digests and sha256(data) not in digests:
                    raise ForeignFilesError(
                        f"'{self.path(path)}' was changed since it was exported: move it away, or choose another --out"
                    )

    def clear(self, first: str, keep: str) -> None:
        """Delete what an export before has written.

        Args:
            first: goes before all others.
            keep: stays.
        """
        self.remove(first)
        for ledger in self.ledgers():
            for path in ledger.files.keys() - {keep}:
                self.delete(path)
            if ledger.name == LEDGER:
                ledger.files = {keep: ledger.files[keep]}
                ledger.save()
            else:
                self.delete(ledger.name)

    def ledgers(self) -> Iterator[Ledger]:
        """What lists the files, one after the other; the one that is written to last comes last.

        Raises:
            ForeignFilesError: one is damaged.
        """
        for name in [*self.glob(BULK), LEDGER]:
            if (ledger := Ledger.known(self, name)) is None:
                raise ForeignFilesError(
                    f"'{self.path(name)}', the list of what was exported, is damaged, so that nothing can be written "
                    f"over: choose another --out"
                )
            yield ledger
