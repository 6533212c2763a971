"""The table of networks.  in: the registry, a few of timm's by name   out: rows, Markdown for the README"""

from dataclasses import dataclass

from study.models.build import create, flops, names, normalization, parameters
from study.models.probe_points import placements
from study.models.registry import NETWORKS, RegisteredModel
from study.models.spec import NetworkSpec

TIMMS = (
    RegisteredModel(
        name="resnetv2_50",
        what="timm's ResNet-50 V2, for ImageNet",
        usual=((3, 224, 224), 1000),
        source="J-tab2",
        settings={},
    ),
)


@dataclass(frozen=True)
class Row:
    """One network at its usual images and classes.

    settings: name = default, of those that a recipe can change.
    flops: of one example's forward pass, two per multiply-add.
    normalization: as `build.normalization` says it.
    placements: of prediction-depth probes, without input and softmax.
    """

    name: str
    what: str
    settings: str
    image: tuple[int, int, int]
    classes: int
    parameters: int
    flops: int
    normalization: str
    placements: int
    source: str


def table() -> list[Row]:
    """One row per own network, by name, then timm's that a paper names; a recipe may name any other of timm's."""
    return [_row(entry) for entry in (*(NETWORKS[name] for name in names()), *TIMMS)]


def _row(entry: RegisteredModel) -> Row:
    (image, classes), spec = entry.usual, NetworkSpec(entry.name)
    network = create(spec, image, classes, device="meta")
    return Row(
        name=entry.name,
        what=entry.what,
        settings=", ".join(f"{key} = {_toml(value)}" for key, value in entry.settings.items()),
        image=image,
        classes=classes,
        parameters=parameters(network),
        flops=flops(spec, image, classes),
        normalization=normalization(network),
        placements=len(placements(spec, image, classes)),
        source=entry.source,
    )


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def networks_markdown() -> str:
    """The table of networks as Markdown, for the README."""
    lines = [
        "| network | what | settings | parameters | FLOP per image | normalization | probes | source |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in table():
        image = " x ".join(map(str, row.image))
        settings = f"`{row.settings}`" if row.settings else ""
        size = f"{row.parameters:,} ({image}, {row.classes})"
        cells = (f"`{row.name}`", row.what, settings, size, f"{row.flops / 1e6:,.1f} M", row.normalization)
        lines.append(f"| {' | '.join((*cells, str(row.placements), row.source))} |")
    return "\n".join(lines)
