"""Labelling a corpus that grows: only what is new or changed, published as one manifest.

Layout of the output folder::

    latest.json                   names the manifest for readers; replaced in one step, last of all
    progress.json                 names the newest manifest; another one while new settings are being worked through
    manifests/000003.parquet      one row per picture of the corpus; never changed
    contents/000003.parquet       one row per content ever labelled with these settings
    changes/000004.parquet        what a batch of a long run has changed, where no whole manifest follows it
    batches/000003/               what that run labelled: a run folder; never changed once published

A picture is told from others by its content. A file that was touched, moved, copied or was away for a while is not
labelled again; one whose stamp (size and times) changed is read again. So a reader of `latest.json` always sees a
whole generation, whatever the next run is doing.
"""

from pnp_core.corpus._output import Corpus, check_corpus
from pnp_core.corpus._summary import CorpusSummary

__all__ = ["Corpus", "CorpusSummary", "check_corpus"]
