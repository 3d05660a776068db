"""A batch that does not fit into memory is halved: the run goes on, and its masks are the same bytes."""

from importlib import import_module
from itertools import chain
from pathlib import Path

import pytest
import torch

from pnp_core.devices import is_out_of_memory
from pnp_core.methods import METHODS
from pnp_core.methods import _load as loading
from pnp_core.stages.config import RuntimeConfig
from pnp_core.stages.fitting import Fitting, batch_size, fitting
from tests.flows.commands import call, summary_of

TOY = Path(__file__).parents[1] / "toy_method"
OUT_OF_MEMORY = {
    "gpu": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"),
    "cpu": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
}


@pytest.fixture
def toy(monkeypatch):
    """The module of the toy method, whose package is installed."""
    monkeypatch.syspath_prepend(TOY)
    METHODS.__dict__.pop("_places", None)
    fitting.cache_clear()
    yield import_module("toy_method.method")
    METHODS.__dict__.pop("_places", None)
    fitting.cache_clear()


def masks(out: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted((out / "masks").rglob("*.parquet"))]


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_a_batch_that_does_not_fit_is_halved_and_the_masks_are_the_same_bytes(toy, monkeypatch, tmp_path, error):
    config = tmp_path / "toy.yaml"
    config.write_text("method: toy\nmasks: {crf: {name: 'off'}}\ndispatch: {attempts: 1}\n")
    command = ("eval", "scenes", "--limit", "12", "--shards", "2", "--config", config, "--json")
    summary_of(call(*command, "--out", tmp_path / "roomy"))
    sizes: list[int] = []

    class Small(toy.LoadedToy):
        """On a device with memory for two images."""

        def encode(self, prepared):
            sizes.append(len(prepared))
            if len(prepared) > 2:
                raise error
            return super().encode(prepared)

    small = type("SmallMethod", (toy.ToyMethod,), {"load": lambda self, config, *_: Small(config)})
    monkeypatch.setattr(toy, "METHOD", small())
    loading.cache_clear()
    done = call(*command, "--out", tmp_path / "small")
    loading.cache_clear()
    assert summary_of(done)["labelled"] == 12
    assert sizes == [6, 3, 1, 1, 1, 1, 1, 1] + [1] * 6, "what does not fit is not tried again"
    assert done.stderr.count("warning: salience: no memory for a batch of 6") == 1
    assert masks(tmp_path / "small") == masks(tmp_path / "roomy")


def test_a_single_image_that_does_not_fit_is_an_error():
    def work(batch):
        raise OUT_OF_MEMORY["gpu"]

    with pytest.raises(torch.OutOfMemoryError):
        list(Fitting("salience", "cpu").parts([1, 2, 3, 4], work))


def test_other_errors_are_no_lack_of_memory():
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
    assert not is_out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize(("device", "together"), [("cpu", 16), ("cuda", 128)])
def test_auto_begins_with_what_a_device_usually_has_room_for_and_halves_without_a_word(device, together, caplog):
    runtime = RuntimeConfig(device=device, batch_size="auto")
    assert batch_size(runtime) == together
    sizes: list[int] = []

    def work(batch):
        sizes.append(len(batch))
        if len(batch) > 5:
            raise OUT_OF_MEMORY["gpu"]
        return batch

    fits = Fitting("salience", "cpu", expected=True)
    assert [*chain.from_iterable(fits.parts(list(range(together)), work))] == list(range(together))
    assert sizes[:3] == [together, together // 2, together // 4]
    assert not caplog.records


def test_batch_size_is_a_number_or_auto(tmp_path):
    command = ("eval", "scenes", "--limit", "2", "--out", tmp_path / "out", "--json", "--batch-size")
    assert summary_of(call(*command, "auto"))["labelled"] == 2
    refused = call(*command, "many")
    assert refused.exit_code == 2
    assert "runtime.batch_size: must be a number of pictures, 1 or more, or auto, not 'many'" in refused.stderr
