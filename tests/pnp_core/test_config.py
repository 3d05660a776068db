import pytest
from pydantic import ValidationError

from pnp_core.config import PRESETS, CaptionConfig, EvalConfig, LabelConfig, RuntimeConfig, preset
from pnp_core.errors import UnknownNameError
from pnp_core.stages.masks import MaskJob
from pnp_core.stages.salience import SalienceJob


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_for_both_flows(name):
    EvalConfig.model_validate({"preset": name, "out": "x"})
    LabelConfig.model_validate({"preset": name, "out": "x", "source": "y", "classes": ["a"]})


def test_authors_preset_has_the_released_codes_numbers():
    config = EvalConfig.model_validate({"preset": "authors", "out": "x"})
    salience, masks = config.salience, config.masks
    assert (salience.layer, salience.head, salience.backbone.image_size, salience.backbone.heads) == (7, 9, 336, 12)
    assert (salience.dropout.iterations, salience.dropout.strategy, salience.dropout.amount) == (4, "count", 10)
    assert (masks.sum, masks.threshold, masks.blur) == ("first_twice", 0.15, 0.05)
    crf = masks.crf
    assert (crf.gaussian_sxy, crf.gaussian_compat, crf.bilateral_sxy, crf.bilateral_srgb) == (3, 7, 50, 5)
    assert (crf.bilateral_compat, crf.iterations) == (10, 10)
    assert salience.caption.template == "A picture of {}"


def test_paper_preset_keeps_half_of_the_patches_each_time():
    dropout = EvalConfig.model_validate({"preset": "paper", "out": "x"}).salience.dropout
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
    return SalienceJob.create("x", config.salience, config.runtime, ("a", "b"))


def test_fingerprint_ignores_device_and_batch_size():
    assert salience_job().fingerprint == salience_job(runtime=RuntimeConfig(device="cpu", batch_size=1)).fingerprint


def test_fingerprint_follows_layer_and_class_names():
    job = salience_job()
    other_layer = job.model_copy(update={"config": job.config.model_copy(update={"layer": 1})})
    other_names = job.model_copy(update={"class_names": ("a", "c")})
    assert len({job.fingerprint, other_layer.fingerprint, other_names.fingerprint}) == 3


def test_changed_crf_keeps_the_salience_fingerprint_and_changes_the_masks():
    config = EvalConfig.model_validate({"out": "x"}).masks

    def job(masks):
        return MaskJob(
            out="x", config=masks, max_pixels=1, class_names=("a",), model="m", salience_fingerprint="s"
        ).fingerprint

    changed = config.model_copy(update={"crf": config.crf.model_copy(update={"bilateral_srgb": 9.0})})
    assert job(config) != job(changed)


def test_given_values_are_laid_over_the_preset_part_by_part():
    config = EvalConfig.model_validate({"preset": "authors", "out": "x", "masks": {"crf": {"iterations": 3}}})
    assert (config.masks.crf.iterations, config.masks.crf.bilateral_sxy, config.masks.sum) == (3, 50, "first_twice")


def test_dumped_configuration_reads_back_as_the_same():
    config = LabelConfig.model_validate({"preset": "paper", "out": "x", "source": "y", "classes": ["a"], "png": True})
    assert LabelConfig.model_validate(config.model_dump(mode="json")) == config


def test_user_pictures_are_asked_for_every_class_and_datasets_for_their_labels():
    assert LabelConfig.model_validate({"out": "x", "source": "y", "classes": ["a"]}).salience.candidates == "vocabulary"
    assert EvalConfig(out="x").salience.candidates == "labels"
