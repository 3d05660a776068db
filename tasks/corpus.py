"""Tasks of the corpus flow."""

from __future__ import annotations

from dataclasses import dataclass

from pnp_core.corpus import Corpus
from pnp_core.data import ShardRef
from pnp_core.inputs.sources.links import LINKS, left_out, no_images
from pnp_core.runs.plan import Plan
from pnp_core.storage.ownership import claim
from pnp_core.storage.shards import read_refs
from tasks.runtime import runtime, stage_task


@dataclass(frozen=True)
class Collected:
    """What one batch has to label, whether there may be more for another, how many files and links that leave the
    folder were passed over, and what is to be said of what else was left out.
    """

    number: int
    plan: Plan
    shards: list[ShardRef]
    more: bool
    ignored: int = 0
    links: int = 0
    left_out: tuple[str, ...] = ()


@stage_task("collect")
def task_collect(corpus: Corpus, retry: bool) -> Collected:
    """Find what is new or changed, and shard it."""
    shards, more = corpus.collect(retry)
    ignored = corpus.ignored
    others = no_images(ignored).total()
    return Collected(corpus.number, corpus.plan(), shards, more, others, ignored[LINKS], tuple(left_out(ignored)))


@stage_task("mend")
def task_find_damage(corpus: Corpus) -> dict[int, str]:
    """Batches with damaged masks, each with one of those files."""
    return corpus.damaged()


@stage_task("take-up")
def task_take_up(corpus: Corpus, number: int) -> Collected:
    """A batch that was published, to be labelled again where it is damaged."""
    batch = corpus.batch(number)
    claim(batch.url, "run")
    return Collected(number, corpus.plan(number), read_refs(batch), more=False)


@stage_task("publish")
def task_publish(corpus: Corpus, collected: Collected) -> str:
    """Make the results the latest; returns the manifest's place."""
    return corpus.publish(collected.number, collected.shards, collected.plan, collected.more)


@stage_task("report")
def task_report_corpus(text: str) -> None:
    """Leave a page."""
    runtime().leave_page(lambda: text, key="corpus", description="What is new in the corpus")
