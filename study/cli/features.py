"""`study features`.  in: a recipe's images, a pretrained network   out: a file of features"""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from study.cli.interrupt import interruptible
from study.cli.opening import load_recipe
from study.cli.options import Overrides, RecipePath
from study.progress import bar, command, print_line


def features(
    recipe: RecipePath,
    model: Annotated[str, typer.Option(metavar="NAME", help="one of timm's networks, such as resnet18.a1_in1k")],
    overrides: Overrides = [],
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="its weights; the published ones from the hub unless given")
    ] = None,
    size: Annotated[
        int, typer.Option(min=0, help="pixels that images are brought to; 0: as the network was pretrained")
    ] = 0,
    out: Annotated[Path, typer.Option(metavar="FILE", help="the file of features")] = Path("features.npz"),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
) -> None:
    """Compute features of images by a pretrained network.

    The file is what `data.name = "features"` reads: C-scores by linear heads take minutes.
    """
    from study import data
    from study.api.features import extract_features

    opened, _ = load_recipe(recipe, overrides)
    with interruptible() as stop:
        images = data.load(opened.data)
        file = extract_features(
            images, out, model=model, weights=weights, size=size or None, device=device, progress=bar, stop=stop
        )
    print_line(f"features: {file}")
    words = [
        "run",
        "recipes/own/features.toml",
        "--set",
        f"data.root={file}",
        "--set",
        f"data.label={images.name}-features",
    ]
    print_line(f"next: {command(shlex.join(words))}")
