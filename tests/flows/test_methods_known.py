"""What the commands say of the methods: which there are, whether one can run here."""

import json

import pytest

from flows.server.deployment_runs import _for_method
from pnp_core.methods import METHODS
from tests.flows.commands import call


def test_all_methods_are_listed_with_what_they_are():
    listed = json.loads(call("methods", "--json").stdout)
    assert [method["name"] for method in listed] == list(METHODS)
    assert all(method["about"].endswith(".") for method in listed)


def test_doctor_measures_a_method_with_the_settings_it_is_given():
    own = ("-p", "method.clip.model=tiny-vit", "-p", "method.queries={mug: [mug, cup]}")
    done = call("doctor", "--method", "naclip", *own, "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["method"], found["weights"], found["problem"]) == ("naclip", "tiny-vit", None)
    assert 0 < found["measured"]["seconds"] < 60
    assert found["measured"]["memory_gb"] > 0


def test_doctor_says_which_weights_are_missing_and_what_to_do(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for method, problem in (("simzss", "convert-weights FILE --method simzss"), ("naclip", "give a weights file")):
        done = call("doctor", "--method", method, "--json")
        assert done.exit_code == 1
        assert problem in json.loads(done.stdout.splitlines()[-1])["problem"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "ensemble"], "an ensemble needs finished runs"),
        (["--method", "classify"], "classify needs proposals"),
        (["--method", "naklip"], "unknown method 'naklip'; did you mean 'naclip'?"),
        (["--method", "naclip", "-p", "method.sigma=-1"], "sigma"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, message):
    done = call("doctor", *arguments)
    assert done.exit_code == 2
    (line,) = done.stderr.strip().splitlines()
    assert message in line


def test_what_a_deployment_presets_for_its_method_is_not_for_another_one():
    preset = {"dataset": "voc21", "preset": "authors", "dispatch": {"mode": "deployment"}}
    kept = {key: value for key, value in preset.items() if key != "preset"}
    assert {"method": {}, **_for_method(preset, {"method": {"name": "naclip"}})} == {"method": {}, **kept}
    for same in ({}, {"method": {"layer": 3}}, {"method": {"name": "pnp-ovss"}}):
        assert _for_method(preset, same)["preset"] == "authors"
