"""Every flow as Prefect runs it, to its end."""

from PIL import Image

from flows.corpus import label_corpus
from flows.labelling import label_pictures
from flows.tables import ablate, make_tables
from flows.tuning import tune_dataset
from pnp_core.config import AblateConfig, CorpusConfig, LabelConfig, TablesConfig
from pnp_core.tuning.config import TuneConfig

TINY = {"classes": ["heart", "star"], "preset": "tiny"}


def test_all_flows_run_to_their_end(tmp_path, prefect_server):
    source = tmp_path / "in"
    source.mkdir()
    for number in range(2):
        Image.new("RGB", (64, 64), (90 * number, 80, 70)).save(source / f"{number}.png")
    labelled = label_pictures(LabelConfig.model_validate({"source": str(source), "out": str(tmp_path / "l"), **TINY}))
    assert labelled.labelled == 2
    values = {"source": str(source), "out": str(tmp_path / "c"), "settle": 0, **TINY}
    assert label_corpus(CorpusConfig.model_validate(values)).labelled == 2
    scenes = {"limit": 2, "shards": 1}
    settings = {"method": {"dropout": {"iterations": 2}}, "masks": {"crf": {"name": "off"}}}
    made = ablate(
        AblateConfig.model_validate({"out": str(tmp_path / "a"), "tables": ["iterations"], **scenes, **settings})
    )
    assert len(made.made) == 2
    assert "main.csv" in make_tables(TablesConfig(runs=(str(tmp_path / "a"),), out=str(tmp_path / "t")))
    search = {"search": {"trials": 2, "groups": 1}, "space": {"layers": [0], "heads": [1]}}
    values = {"out": str(tmp_path / "tune"), "images": 2, **search, "compare": {"masks": "off"}}
    assert tune_dataset(TuneConfig.model_validate(values)).best
