"""Which of a card's forms of ground truth is read."""

from __future__ import annotations

from pnp_core.errors import DatasetError, UnknownNameError
from pnp_core.inputs.cards import DatasetCard, DrawnScenes, GroundTruth, InstanceFile, LabelMapFiles
from pnp_core.inputs.readers._folder import DataFolder
from pnp_core.inputs.readers.base import Truth
from pnp_core.inputs.readers.instances import InstanceTruth
from pnp_core.inputs.readers.label_maps import LabelMapTruth


def open_truth(folder: DataFolder, card: DatasetCard, form: GroundTruth, split: str) -> Truth:
    match form:
        case LabelMapFiles():
            return LabelMapTruth(folder, card, split, form)
        case InstanceFile():
            return InstanceTruth(folder, card, split, form)
        case DrawnScenes():
            raise AssertionError("scenes are drawn, not read")


def choose_truth(folder: DataFolder, card: DatasetCard, split: str, name: str | None) -> Truth:
    """The ground truth asked for, or the first form that is on disk.

    Raises:
        UnknownNameError: the card has no such form.
        DatasetError: none is on disk.
    """
    names = [form.name for form in card.ground_truth]
    if name is not None and name not in names:
        raise UnknownNameError(f"ground truth of dataset {card.name}", name, names)
    truths = [open_truth(folder, card, form, split) for form in card.ground_truth if name in (None, form.name)]
    chosen = next((truth for truth in truths if truth.present()), None)
    if chosen is None:
        places = " or ".join(f"'{folder.path(truth.place)}'" for truth in truths)
        raise DatasetError(f"no ground truth of {card.name}: {places} is missing{folder.advice()}")
    return chosen
