"""Train the photo model's text side on kept features: names alone, and the classifier as teacher; no mask of anybody.

    uv run python -m training.photo.train --photos FOLDER --weights FILE.pth --cache CACHE --seed 0 --out FOLDER

Three losses: does the picture hold the name (match); is the attention of a name's token where the teacher sees it;
is attention x gradient of the match logit, which is what the method reads, there too (with second derivatives).
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from training.photo.arguments import parser
from training.photo.composites import Example, read_examples, read_masks, shares
from training.photo.encoder import Classifier, read_classifier
from training.photo.model import PhotoLearner, caption_tokens, export
from training.photo.photos import Names, Photo, names_of, read_photos
from training.photo.teacher import DEEP, GRID, basis_of

NAMES, JOINT, PER_JOINT = 8, 2, 3
"""Captions of a picture in a step: of one name each, and of several names each."""
LONGEST = 8
AT = 4
"""Place of the first name in a caption."""
PATCHES = GRID * GRID
LIKELY = 60
"""So many names that the teacher finds likeliest are hard questions."""
SURE = 0.55
"""How often COCO's names are on COCO's photographs of those that the teacher finds at its best place with certainty; of
others it is about the square of their probability (0.9: 0.56, 0.7: 0.33, 0.5: 0.24, 0.3: 0.10, 0.1: 0.06)."""
PLACED = 1
"""Heads that are taught where to look, the first ones; the others serve the match as they like."""
ATTENTION, SALIENCE = 0.5, 1.0
"""Weights of the two losses of place, beside the match's 1."""


@dataclass(frozen=True)
class Questions:
    """Names that are asked of B pictures.

    Attributes:
        concepts: (B, NAMES).
        target: match probability that is right, in [0, 1].
        weight: how sure that is.
        place: share of each patch that the name covers; zero where that is unknown.
    """

    concepts: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor
    place: torch.Tensor

    def to(self, device: str) -> Questions:
        """On another device."""
        return Questions(*(getattr(self, one.name).to(device) for one in fields(self)))


class Asker:
    """Chooses names that are there, and names that are not, hard ones first."""

    def __init__(self, names: Names, photos: list[Photo], rng: np.random.Generator) -> None:
        self._names, self._rng = names, rng
        # As often as they are there, or the common ones (person first of all) would seldom be wrong.
        common = Counter(names.concept[name] for photo in photos for name in photo.coco)
        self._labels = sorted(names.labels)
        times = np.array([1 + common[label] for label in self._labels])
        self._shares = times / times.sum()
        self._photos = photos
        self._person = names.concept["person"]
        self._animals = names.classes[names.concept["animal"]]
        number = len(names.classes)
        members = torch.zeros(number, 1000)
        for concept, classes in enumerate(names.classes):
            members[concept, sorted(classes)] = 1
        self.members = members
        of_class = [torch.nonzero(column).flatten().tolist() for column in members.T]
        self._concepts: dict[int | str, list[int]] = dict(enumerate(of_class))
        for label in {name for photo in photos for name in photo.coco}:
            own = names.concept[label]
            classes = names.classes[own]
            wider = [c for c, other in enumerate(names.classes) if classes and other > classes]
            self._concepts[label] = [own, *wider]

    def ask(self, examples: list[Example], likeliest: torch.Tensor) -> Questions:
        """Of each picture.

        Args:
            likeliest: the teacher's probability at the best place (B, concepts).
        """
        size = len(examples)
        concepts = torch.zeros(size, NAMES, dtype=torch.long)
        target, weight, place = torch.zeros(size, NAMES), torch.ones(size, NAMES), torch.zeros(size, NAMES, PATCHES)
        for row, example in enumerate(examples):
            there = self._there(example)
            for column, concept in enumerate(self._some_of(list(there))):
                concepts[row, column], target[row, column] = concept, 1
                place[row, column] = torch.from_numpy(there[concept].reshape(-1))
            hard = likeliest[row].topk(LIKELY).indices.tolist()
            for column in range(int(target[row].sum()), NAMES):
                concept = self._other(hard)
                concepts[row, column] = concept
                target[row, column], weight[row, column] = self._judge(
                    concept, concept in there, float(likeliest[row, concept]), example.sources
                )
        return Questions(concepts, target, weight, place)

    def _there(self, example: Example) -> dict[int, np.ndarray]:
        """Concepts on a picture, and where."""
        there: dict[int, np.ndarray] = {}
        for thing, covered in example.things:
            if covered.sum() >= 4:
                for concept in self._concepts[thing]:
                    there[concept] = np.maximum(there[concept], covered) if concept in there else covered
        return there

    def _some_of(self, there: list[int]) -> list[int]:
        """At most half the questions; COCO's names, which people ask for, before WordNet's finer ones."""
        if not there:
            return []
        weights = np.array([4.0 if concept in self._names.labels else 1.0 for concept in there])
        number = min(len(there), NAMES // 2)
        return self._rng.choice(there, number, replace=False, p=weights / weights.sum()).tolist()

    def _other(self, hard: list[int]) -> int:
        kind = self._rng.random()
        if kind < 0.4:
            return hard[int(self._rng.integers(len(hard)))]
        if kind < 0.75:
            return int(self._rng.choice(self._labels, p=self._shares))
        return int(self._rng.integers(len(self._names.classes)))

    def _judge(self, concept: int, there: bool, likeliest: float, sources: tuple[int, ...]) -> tuple[float, float]:
        """Right match probability of a name, and how sure: what the teacher finds likely may well be there."""
        if there:
            return 1.0, 0.3
        if concept in self._names.labels and all(self._photos[number].imagenet is None for number in sources):
            return 0.0, 1.0
        if concept == self._person:  # nobody labelled the people on ImageNet's photographs; few are with animals
            return 0.0, 0.7 if all(map(self._without_people, sources)) else 0.1
        if not self._names.classes[concept]:
            return 0.0, 0.3
        return SURE * likeliest**2, 0.7

    def _without_people(self, number: int) -> bool:
        photo = self._photos[number]
        return "person" not in photo.coco if photo.imagenet is None else photo.imagenet in self._animals


def divergence(found: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence of maps (n, P) >= 0 from places, both as distributions over patches."""
    wanted = place / place.sum(-1, keepdim=True)
    floor = 1e-6 * found.detach().amax(-1, keepdim=True).clamp(min=1e-20)
    given = (found + floor) / (found + floor).sum(-1, keepdim=True)
    return (wanted * (wanted.clamp(min=1e-8).log() - (given + 1e-7).log())).sum(-1)


@dataclass(frozen=True)
class Bank:
    """Kept features of all training pictures (n, C, GRID, GRID), half precision, and what is on each."""

    features: np.ndarray
    examples: list[Example]

    @classmethod
    def read(cls, cache: Path, photos: list[Photo]) -> Bank:
        """The photographs, their mirror images, and the composites."""
        whole, masks = np.load(cache / "features.npy", mmap_mode="r"), read_masks(cache)
        features, examples = [], []
        for number, photo in enumerate(photos):
            for mirrored in (0, 1) if photo.things else ():
                covered = [shares(mask[:, ::-1] if mirrored else mask) for mask in masks[number].astype(np.float32)]
                things = list(zip(photo.things, covered, strict=True))
                examples.append(Example(np.zeros((GRID, GRID), bool), things, (number,)))
                features.append(whole[number, mirrored])
        composites = np.load(cache / "composites.npy", mmap_mode="r")
        return cls(np.concatenate([np.stack(features), composites]), examples + read_examples(cache / "examples.npz"))

    def statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of each channel."""
        some = torch.from_numpy(self.features[::7].astype(np.float32)).flatten(2)
        return some.mean((0, 2)), some.std((0, 2)) + 1e-3


class Trainer:
    """A model, what it is asked, and its losses."""

    def __init__(
        self, seed: int, classifier: Classifier, bank: Bank, names: Names, photos: list[Photo], device: str
    ) -> None:
        torch.manual_seed(seed)
        self.basis, self._device = basis_of(classifier), device
        self.model = PhotoLearner(classifier, self.basis, names, *bank.statistics()).to(device)
        self._rows, self._bias = (classifier.rows @ self.basis.T).to(device), classifier.bias[:, None].to(device)
        self._bank, self._rng = bank, np.random.default_rng(seed)
        self._generator = torch.Generator().manual_seed(seed)
        self._asker = Asker(names, photos, self._rng)
        self._members = self._asker.members.to(device)

    def losses(self, batch: int, hide: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Match, attention and salience loss of a random batch.

        Args:
            hide: share of steps in which image tokens are kept from attention.
        """
        chosen = self._rng.integers(0, len(self._bank.examples), batch)
        examples = [self._bank.examples[i] for i in chosen]
        features = torch.from_numpy(self._bank.features[chosen]).to(self._device).float()
        questions = self._asker.ask(examples, self._likeliest(features).cpu())
        questions, ids, joint = self._captions(questions)
        questions, ids, joint = questions.to(self._device), ids.to(self._device), joint.to(self._device)
        seen = None
        if self._rng.random() < hide:
            kept = float(self._rng.uniform(0.3, 0.95))
            seen = torch.rand(batch, 1 + PATCHES, generator=self._generator) < kept
            seen[:, 0] = True
            seen = seen.to(self._device)
        logits, attention = self.model.match(ids, ids > 0, self.model.tokens(features), seen)
        logit = logits[..., 1] - logits[..., 0]
        match = F.binary_cross_entropy_with_logits(logit, questions.target, reduction="none") * questions.weight
        (gradient,) = torch.autograd.grad(logits[..., 1].sum(), attention[0], create_graph=True)
        visible = torch.from_numpy(np.stack([~example.hidden for example in examples])).flatten(1).to(self._device)
        visible = visible if seen is None else visible & seen[:, 1:]
        place = questions.place * visible[:, None]
        placed = place.sum(-1) > 2
        looked = self._of_names(attention[0], joint) * visible[:, None, None]
        pushed = self._of_names(gradient, joint)
        taught, wanted = placed[:, None].expand(-1, PLACED, -1), place[:, None].expand(-1, PLACED, -1, -1)
        looked, pushed, wanted = looked[taught] + 1e-8, pushed[taught], wanted[taught] + 1e-8
        # A soft ReLU, on the gradient's own scale: where it is negative it can still be taught.
        soft = F.softplus(20 * pushed / pushed.abs().amax(-1, keepdim=True).clamp(min=1e-12)) / 20
        return (
            match.sum() / questions.weight.sum(),
            divergence(looked, wanted).mean(),
            divergence(looked * soft + 1e-10, wanted).mean(),
        )

    def _likeliest(self, features: torch.Tensor) -> torch.Tensor:
        """The teacher's probability of each concept at its best place (B, concepts)."""
        deep = features[:, :DEEP].flatten(2)
        return (self._members @ (self._rows @ deep + self._bias).softmax(1)).amax(-1)

    def _captions(self, asked: Questions) -> tuple[Questions, torch.Tensor, torch.Tensor]:
        """Token ids of all captions (B, NAMES + JOINT, LONGEST); questions and places of those of several names too.

        Most captions of several names have names that are there; they match when all of them are.
        """
        batch = len(asked.concepts)
        draw = torch.rand(batch, JOINT, NAMES, generator=self._generator)
        mostly = (torch.rand(batch, JOINT, 1, generator=self._generator) < 0.7).float()
        known = (asked.place.sum(-1) > 0).float()[:, None]
        which = (draw - 1.5 * known * mostly).argsort(-1)[..., :PER_JOINT]

        def take(values: torch.Tensor) -> torch.Tensor:
            return values[:, None].expand(-1, JOINT, -1).gather(2, which)

        places = asked.place.gather(1, which.flatten(1)[..., None].expand(-1, -1, PATCHES))
        ids = torch.cat(
            [caption_tokens(asked.concepts[..., None], LONGEST), caption_tokens(take(asked.concepts), LONGEST)], 1
        )
        return (
            Questions(
                asked.concepts,
                torch.cat([asked.target, take(asked.target).prod(-1)], 1),
                torch.cat([asked.weight, take(asked.weight).amin(-1)], 1),
                torch.cat([asked.place, places], 1),
            ),
            ids,
            which,
        )

    @staticmethod
    def _of_names(maps: torch.Tensor, joint: torch.Tensor) -> torch.Tensor:
        """Of (B, heads, captions * tokens, 1 + P) the taught heads' rows of names (B, PLACED, names, P)."""
        by_token = maps[:, :PLACED, :, 1:].unflatten(2, (NAMES + JOINT, LONGEST))
        single, several = by_token[:, :, :NAMES, AT], by_token[:, :, NAMES:, AT : AT + PER_JOINT]
        return torch.cat([single, several.flatten(2, 3)], 2)


def train(
    photos: Path,
    weights: Path,
    cache: Path,
    seed: int,
    out: Path,
    steps: int,
    batch: int,
    rate: float,
    hide: float,
    device: str,
) -> None:
    """Train and write a checkpoint folder."""
    known = read_photos(photos)
    names, classifier = names_of(known), read_classifier(weights)
    trainer = Trainer(seed, classifier, Bank.read(cache, known), names, known, device)
    model = trainer.model
    words = model.text.embeddings.word_embeddings.weight
    others = [p for p in model.parameters() if p is not words and p.requires_grad]
    groups = [
        {"params": others, "lr": rate, "weight_decay": 0.05},
        {"params": [words], "lr": 0.3 * rate, "weight_decay": 0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    usual = [group["lr"] for group in optimizer.param_groups]
    shown, start = np.zeros(3), time.monotonic()
    for step in range(steps):
        course = min(1, (step + 1) / 200) * max(0.02, 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group, own in zip(optimizer.param_groups, usual, strict=True):
            group["lr"] = own * course
        losses = trainer.losses(batch, hide)
        optimizer.zero_grad()
        (losses[0] + ATTENTION * losses[1] + SALIENCE * losses[2]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        shown += (torch.stack(losses).detach().cpu().numpy() - shown) * (0.02 if step else 1)
        if (step + 1) % 100 == 0:
            match, attention, salience = shown
            minutes = (time.monotonic() - start) / 60
            losses_shown = f"match {match:.3f}  attention {attention:.3f}  salience {salience:.3f}"
            print(f"{minutes:5.1f} min  step {step + 1}  {losses_shown}", flush=True)
    export(model.eval().cpu(), classifier, trainer.basis, names, out)


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--out", type=Path, required=True)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--steps", type=int, default=1800)
    made.add_argument("--batch", type=int, default=16)
    made.add_argument("--rate", type=float, default=6e-4)
    made.add_argument("--hide", type=float, default=0.3)
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--device", default="cpu")
    arguments = vars(made.parse_args())
    torch.set_num_threads(arguments.pop("threads"))
    train(**arguments)


if __name__ == "__main__":
    main()
