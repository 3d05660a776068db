"""What a person sees of methods, their models and what a run costs: lists, diagnoses, conversions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from flows.cli.console import shown
from pnp_core.text.durations import duration

if TYPE_CHECKING:  # these import torch, which takes seconds
    from flows.cli.models import KnownMethod
    from pnp_core.checks.backbone import Diagnosis
    from pnp_core.checks.method import MethodDiagnosis
    from pnp_core.checks.run_cost import RunCost
    from pnp_core.methods.pnp.backbones.cards import BackboneCard
    from pnp_core.storage.weights import Conversion


def show_backbones(cards: Sequence[BackboneCard], console: Console) -> None:
    """Print what is known of each vision-language model."""
    for card in cards:
        console.print(f"[bold]{card.name}[/]  {shown(card.title)}, {shown(card.paper)}, {shown(card.licence)}")
        guess = " [yellow](a guess)[/]" if card.guess else ""
        there = f"layers 0-{card.layers - 1}, heads 0-{card.heads - 1}"
        default = f"default layer {card.layer}, head {card.head}{guess}: {shown(card.choice)}"
        pixels = f"{card.image_size} px by default, trained at {card.native_size}, patches of {card.patch_size} px"
        for line in (there, default, pixels, f"{card.shape.parameters:.0f} M parameters; {shown(card.tokenizer)}"):
            console.print(f"  {line}", soft_wrap=True)
        for weights in card.weights:
            how = " [dim](convert-weights)[/]" if weights.convert else ""
            note = f": {shown(weights.note)}" if weights.note else ""
            console.print(f"  - {shown(weights.name)}{how}{note}", soft_wrap=True)


def show_methods(known: Sequence[KnownMethod], console: Console) -> None:
    """Print what each method is."""
    for method in known:
        console.print(f"[bold]{shown(method.name)}[/]  {shown(method.about)}", soft_wrap=True)
        if method.settings:
            console.print(f"  {shown(method.settings)}", soft_wrap=True)


def show_method_diagnosis(found: MethodDiagnosis, console: Console) -> None:
    """Print whether a method can run, and what it costs."""
    ready = "[red]cannot run like this[/]" if found.problem else "[green]can run[/]"
    console.print(f"{shown(found.method)}: {shown(found.weights)} {ready}", soft_wrap=True)
    if found.problem:
        console.print(f"  {shown(found.problem)}", soft_wrap=True)
    console.print(f"  downloads: {'off (HF_HUB_OFFLINE)' if found.offline else 'allowed'}")
    console.print(f"  device: {shown(found.device)}")
    if found.loading is not None:
        console.print(f"  loaded in {found.loading:.1f} s")
    if found.measured:
        cost = f"{found.measured.seconds:.2g} s per picture of 500 x 375 pixels and one class"
        console.print(f"  measured here: {cost}, {found.measured.memory_gb:.1f} GB", soft_wrap=True)
    elif not found.problem:
        console.print("  not measured: it looks at no picture that it has nothing of")


def show_diagnosis(found: Diagnosis, console: Console) -> None:
    """Print whether a model can run, and what it costs."""
    at_hand = "[red]at hand, but not to be used like this[/]" if found.problem else "[green]at hand[/]"
    mark = at_hand if found.folder else "[red]not at hand[/]"
    console.print(f"{shown(found.backbone)}: weights {shown(found.checkpoint)} {mark}", soft_wrap=True)
    if found.problem:
        console.print(f"  {shown(found.problem)}", soft_wrap=True)
    if found.folder:
        console.print(f"  in {shown(found.folder)}", soft_wrap=True)
    console.print(f"  downloads: {'off (HF_HUB_OFFLINE)' if found.offline else 'allowed'}")
    console.print(
        f"  device: {shown(found.device)}; pictures of {found.image_size[0]} x {found.image_size[1]} model pixels"
    )
    for what, cost in (("expected of the published model", found.expected), ("measured here", found.measured)):
        if cost:
            console.print(
                f"  {what}: {cost.seconds:.2g} s per picture and pass, {cost.memory_gb:.1f} GB", soft_wrap=True
            )


def show_conversion(done: Conversion, console: Console) -> None:
    """Print what became of the authors' file."""
    console.print(f"[green]{done.kept} tensors[/] in {shown(str(done.folder))}", soft_wrap=True)
    for reason, number in sorted(done.dropped.items()):
        console.print(f"  left out: {number} {shown(reason)}", soft_wrap=True)
    console.print(f"  use them with {done.use}{shown(str(done.folder))}", soft_wrap=True)


def show_cost(cost: RunCost, console: Console) -> None:
    """Print what a run is, and what it will take."""
    settings = f", {cost.settings} settings" if cost.settings > 1 else ""
    done = f" ({cost.done} of them done)" if cost.done else ""
    at_hand = "at hand" if cost.problem is None else "[red]not at hand[/]"
    lines = [
        ("pictures", f"{cost.pictures}{done}, {cost.classes} classes{settings}"),
        ("method", f"{shown(cost.method)}, {shown(cost.model)}"),
        ("weights", f"{shown(cost.weights)}, {at_hand}"),
        ("candidates", shown(cost.candidates)),
        ("device", f"{shown(cost.device)}, batches of {cost.batch_size}"),
    ]
    if cost.problem is not None:
        lines.append(("no estimate", shown(cost.problem)))
    elif cost.tried and not cost.labelled:
        lines.append(("no estimate", f"all {cost.tried} pictures that were tried were quarantined"))
    elif cost.total_seconds is None:
        lines.append(("time", "nothing is left to do"))
    else:
        parts = ", ".join(f"{name} {duration(seconds)}" for name, seconds in cost.seconds.items())
        lines += [
            ("time", f"about {duration(cost.total_seconds)} ({parts}), from {cost.labelled} pictures"),
            ("memory", f"about {(cost.memory_bytes or 0) / 1e9:.1f} GB"),
            ("disk", f"about {_size(cost.disk_bytes or 0)} in {shown(cost.out)}"),
        ]
        if lost := cost.tried - cost.labelled:
            lines.append(("quarantine", f"{lost} of {cost.tried} tried were quarantined"))
    for name, text in lines:
        console.print(f"{name:14} {text}", soft_wrap=True, highlight=False)


def _size(count: int) -> str:
    """Bytes for people.

    >>> _size(2_500_000), _size(3_000_000_000)
    ('2.5 MB', '3.0 GB')
    """
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
