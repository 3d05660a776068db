import json
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from pnp_core.config import EvalConfig, LabelConfig
from pnp_core.errors import UnknownNameError, UsageError
from pnp_core.inputs.cards import load_card
from pnp_core.masks.config import CrfConfig, MaskConfig
from pnp_core.methods.pnp.backbones import Checkpoint, backbone_card
from pnp_core.methods.pnp.config import CaptionConfig, PnpConfig
from pnp_core.methods.pnp.presets import PRESETS, preset
from pnp_core.runs.plan import plan_eval
from pnp_core.stages.config import RuntimeConfig, SalienceConfig
from pnp_core.stages.maps import SalienceJob
from pnp_core.stages.masks import MaskJob

MASK_JOB = {"method": PnpConfig(), "runtime": RuntimeConfig(), "max_pixels": 1, "model": "m"}


def method_of(config) -> PnpConfig:
    assert isinstance(config.method, PnpConfig)
    return config.method


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_for_both_flows(name):
    EvalConfig.model_validate({"preset": name, "out": "x"})
    LabelConfig.model_validate({"preset": name, "out": "x", "source": "y", "classes": ["a"]})


def test_authors_preset_has_the_released_codes_numbers():
    config = EvalConfig.model_validate({"preset": "authors", "out": "x"})
    method, masks = method_of(config), config.masks
    assert (method.layer, method.head, method.backbone.image_size, method.backbone.heads) == (7, 9, 336, 12)
    assert (method.dropout.iterations, method.dropout.strategy, method.dropout.amount) == (4, "count", 10)
    assert (method.sum, masks.threshold, masks.ties, masks.blur) == ("first_twice", 0.15, "keep", 0.05)
    assert config.salience.words == "authors"
    crf = masks.crf
    assert (crf.gaussian_sxy, crf.gaussian_compat, crf.bilateral_sxy, crf.bilateral_srgb) == (3, 7, 50, 5)
    assert (crf.bilateral_compat, crf.iterations) == (10, 10)
    assert method.caption.template == "A picture of {}"


def test_paper_preset_keeps_half_of_the_patches_each_time():
    dropout = method_of(EvalConfig.model_validate({"preset": "paper", "out": "x"})).dropout
    assert (dropout.strategy, dropout.amount, dropout.iterations) == ("fraction", 0.5, 4)


def test_unknown_preset_names_those_there_are():
    with pytest.raises(UnknownNameError, match="unknown preset 'autors'; did you mean 'authors'"):
        preset("autors")


def test_configuration_is_immutable_and_refuses_unknown_keys():
    config = EvalConfig(out="x")
    with pytest.raises(ValidationError):
        config.out = "y"
    with pytest.raises(ValidationError, match="Extra inputs"):
        EvalConfig.model_validate({"out": "x", "treshold": 1})


@pytest.mark.parametrize("template", ["A picture", "{} and {}"])
def test_template_needs_exactly_one_slot(template):
    with pytest.raises(ValidationError, match="exactly one"):
        CaptionConfig(template=template)


def salience_job(**changes) -> SalienceJob:
    config = EvalConfig.model_validate({"out": "x", **changes})
    card = load_card("folder").with_classes(("a", "b"))
    return SalienceJob.create("x", config.method, config.salience, config.runtime, card)


def test_fingerprint_ignores_device_and_batch_size():
    assert salience_job().fingerprint == salience_job(runtime=RuntimeConfig(device="cpu", batch_size=1)).fingerprint


def test_fingerprint_follows_layer_and_class_names():
    job = salience_job()
    other_layer = job.model_copy(update={"method": job.method.model_copy(update={"layer": 1})})
    other_names = job.model_copy(update={"card": load_card("folder").with_classes(("a", "c"))})
    fewer = job.model_copy(update={"vocabulary": (2,)})
    other_file = job.model_copy(update={"candidates": "revision"})
    jobs = [job, other_layer, other_names, fewer, other_file]
    assert len({j.fingerprint for j in jobs}) == len(jobs)


def test_fingerprint_follows_what_the_candidates_file_says_not_where_it_lies(tmp_path):
    def job(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return salience_job(salience={"candidates": {"source": "file", "file": str(tmp_path / name)}}).fingerprint

    assert job("a.json", "{}") == job("b.json", "{}") != job("b.json", '{"k": []}')


def test_fingerprints_of_masks_follow_names_and_colours():
    def fingerprint(**changes):
        values = {"out": "x", "config": EvalConfig(out="x").masks, "class_names": ("a",), **MASK_JOB}
        return MaskJob.model_validate({**values, "salience_fingerprint": "s", **changes}).fingerprint

    assert len({fingerprint(), fingerprint(class_names=("b",)), fingerprint(palette=("#102030",))}) == 3


def test_fingerprint_follows_spellings_only_where_a_file_may_use_them(tmp_path):
    (tmp_path / "c.json").write_text("{}")
    file = {"source": "file", "file": str(tmp_path / "c.json")}

    def fingerprints(candidates):
        config = EvalConfig.model_validate({"out": "x", "salience": {"candidates": candidates}})
        card = load_card("folder").with_classes(("a", "b"))
        spelled = tuple(entry.model_copy(update={"synonyms": ("z",)}) for entry in card.classes)
        other = card.model_copy(update={"classes": spelled})
        return {
            SalienceJob.create("x", config.method, config.salience, config.runtime, c).fingerprint
            for c in (card, other)
        }

    assert len(fingerprints(file)) == 2
    assert len(fingerprints({"source": "labels"})) == 1


def test_fingerprint_ignores_the_clip_that_is_not_in_use():
    other = {"candidates": {"clip": {"template": "art of a {}"}}}
    assert salience_job().fingerprint == salience_job(salience=other).fingerprint


def test_fingerprints_follow_the_words_only_where_the_authors_have_others():
    def found(card, words):
        config = SalienceConfig(words=words)
        weights = Checkpoint(folder=Path(), revision="r", layers=2, heads=2)
        rest = {"method": PnpConfig(), "runtime": RuntimeConfig(), "vocabulary": (1, 2), "pinned": weights}
        return SalienceJob.model_validate({"out": "x", "config": config, "card": load_card(card), **rest}).fingerprint

    assert found("scenes", "authors") == found("scenes", "natural")
    assert found("voc21", "authors") != found("voc21", "natural")
    assert found("voc21", "natural") == "c7f36652fcb95c71", "as before there were words to choose"


def test_fingerprints_follow_ties_only_where_they_are_kept():
    def found(**changes):
        masks = MaskConfig(background="always", crf=CrfConfig(name="dense")).model_copy(update=changes)
        rest = {"class_names": ("a",), "salience_fingerprint": "s", **MASK_JOB}
        return MaskJob.model_validate({"out": "x", "config": masks, **rest}).fingerprint

    assert found(ties="keep") != found() == "cd4a3965534388ea", "as before there were ties"


def test_fingerprint_of_a_changed_backbone_is_another(tmp_path):
    job = salience_job()
    changed = job.model_copy(update={"pinned": replace(job.pinned, version=2)})
    assert backbone_card("mplug").version == 2
    assert changed.fingerprint != job.fingerprint


@pytest.mark.parametrize("name", ["photo", "bridgetower"])
def test_the_photo_model_is_asked_in_natural_words_whatever_the_preset(name):
    values = {"preset": "authors", "out": "x", "salience": {"backbone": {"name": name}}}
    assert EvalConfig.model_validate(values).salience.words == ("natural" if name == "photo" else "authors")


def test_a_recorded_configuration_without_the_newer_settings_had_their_defaults():
    kept = EvalConfig.model_validate({"preset": "authors", "out": "x", "masks": {"threshold": 0.3}}).model_dump()
    assert EvalConfig.recorded(kept) == EvalConfig.model_validate(kept)
    del kept["salience"]["words"], kept["masks"]["ties"]
    before = EvalConfig.recorded(kept)
    assert (before.salience.words, before.masks.ties) == ("natural", "cut")
    assert (before.preset, method_of(before).layer, before.masks.threshold) == ("authors", 7, 0.3)


def test_changed_crf_keeps_the_salience_fingerprint_and_changes_the_masks():
    config = EvalConfig.model_validate({"out": "x"}).masks

    def job(masks):
        rest = {"class_names": ("a",), "salience_fingerprint": "s", **MASK_JOB}
        return MaskJob.model_validate({"out": "x", "config": masks, **rest}).fingerprint

    changed = config.model_copy(update={"crf": config.crf.model_copy(update={"bilateral_srgb": 9.0})})
    assert job(config) != job(changed)


def test_given_values_are_laid_over_the_preset_part_by_part():
    config = EvalConfig.model_validate({"preset": "authors", "out": "x", "masks": {"crf": {"iterations": 3}}})
    assert (config.masks.crf.iterations, config.masks.crf.bilateral_sxy, method_of(config).sum) == (
        3,
        50,
        "first_twice",
    )


def test_dumped_configuration_reads_back_as_the_same():
    config = LabelConfig.model_validate({"preset": "paper", "out": "x", "source": "y", "classes": ["a"], "png": True})
    assert LabelConfig.model_validate(config.model_dump(mode="json")) == config


def test_user_pictures_are_asked_for_classes_that_match_and_datasets_for_their_labels():
    label = LabelConfig.model_validate({"out": "x", "source": "y", "classes": ["a"]})
    assert (label.salience.candidates.source, label.salience.candidates.fallback) == ("itm", "background")
    assert EvalConfig(out="x").salience.candidates.source == "labels"


def test_settings_file_lies_between_what_is_given_and_what_a_flow_presets(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("preset: paper\nsalience: {layer: 3, candidates: {source: vocabulary}}\nmasks: {threshold: 0.4}\n")
    config = LabelConfig(config_file=str(file), source=".", classes=("cat",), out="x", masks={"blur": 0.3})
    assert config.preset == "paper"
    assert (method_of(config).layer, config.salience.candidates.source) == (3, "vocabulary")
    assert config.salience.candidates.fallback == "background", "the flow's own default, where the file says nothing"
    assert (config.masks.threshold, config.masks.blur) == (0.4, 0.3)
    assert LabelConfig.model_validate(config.model_dump()) == config


def test_a_stored_configuration_can_be_read_without_its_settings_file(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("masks: {threshold: 0.4}\n")
    stored = EvalConfig(config_file=str(file), out="x").model_dump(mode="json")
    file.unlink()
    assert EvalConfig.model_validate(stored).masks.threshold == 0.4


@pytest.mark.parametrize(
    ("text", "message"),
    [(None, "cannot read configuration"), ("a: [", "is not valid YAML"), ("- 1\n", "must be a mapping")],
)
def test_a_bad_settings_file_ends_in_one_line(text, message, tmp_path):
    file = tmp_path / "settings.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError, match=message):
        EvalConfig(config_file=str(file), out="x")


def test_configuration_read_back_from_a_run_has_the_same_fingerprints():
    given = EvalConfig(out="run")
    read = EvalConfig.model_validate(json.loads(given.model_dump_json()))
    assert read == given
    here, there = plan_eval(given), plan_eval(read)
    assert here.salience.fingerprint == there.salience.fingerprint
    assert here.masks.fingerprint == there.masks.fingerprint


OLD_AND_NEW = [
    (
        {"salience": {"layer": 3, "backbone": {"image_size": 64}}},
        {"method": {"layer": 3, "backbone": {"image_size": 64}}},
    ),
    ({"masks": {"sum": "first_twice", "blur": 0.1}}, {"method": {"sum": "first_twice"}, "masks": {"blur": 0.1}}),
    ({"method": "pnp-ovss"}, {}),
    ({"method": PnpConfig(layer=2), "masks": {"passes": 1}}, {"method": PnpConfig(layer=2, passes=1)}),
]


@pytest.mark.parametrize(("former", "now"), OLD_AND_NEW)
def test_settings_of_the_method_may_stand_where_they_were_before_there_were_others(former, now):
    assert EvalConfig.model_validate({"out": "x", **former}) == EvalConfig.model_validate({"out": "x", **now})


def test_a_setting_that_stands_in_both_places_must_be_the_same():
    both = {"out": "x", "method": {"layer": 3}, "salience": {"layer": 7}}
    with pytest.raises(
        UsageError, match=r"salience\.layer is 7 and method\.layer is 3, which are one setting: leave one out"
    ):
        EvalConfig.model_validate(both)
    assert method_of(EvalConfig.model_validate({**both, "salience": {"layer": 3}})).layer == 3


def test_former_name_of_the_settings_file_is_read(tmp_path):
    (tmp_path / "s.yaml").write_text("masks: {threshold: 0.4}\n")
    values = {"out": "x", "settings": str(tmp_path / "s.yaml"), "config_file": None}
    assert EvalConfig.model_validate(values).masks.threshold == 0.4
    with pytest.raises(ValidationError, match="config_file"):
        EvalConfig.model_validate({"out": "x", "config_file": 5})
