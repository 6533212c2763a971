"""Activations of the examples, layer by layer.  in: a checkpoint, a layer   out: features (n, d), held or a Stream

Layers are the input, the placements of the network, and the softmax; and "penultimate", the classifier's input.
"""

import numpy as np
import torch
from torch import Tensor, nn

from study.errors import RecipeError, did_you_mean
from study.kernels.knn import HELD, Stream
from study.models.classifier import classifier_of
from study.models.probe_points import placements
from study.models.spec import NetworkSpec
from study.signals.registry import Checkpoint

INPUT, SOFTMAX, PENULTIMATE = "input", "softmax", "penultimate"
ROWS = 512  # examples in a pass; always the same ones together, so that a row has the same bits however it is read


class _Reached(Exception):  # noqa: N818  no error
    """The output of the layer is caught; the layers after it are not computed."""


def layer_names(spec: NetworkSpec, shape: tuple[int, int, int], n_classes: int) -> tuple[str, ...]:
    """The layers after which k-NN probes sit, in order: "input", each placement, "softmax" (B-depth, A.5)."""
    return (INPUT, *placements(spec, shape, n_classes), SOFTMAX)


def find_layer(layer: str, names: tuple[str, ...]) -> str:
    """The layer that a recipe means, by its name or by its number in `names` written as text; "penultimate" is one too.

    Raises:
        RecipeError: no such layer; names those there are.
    """
    if layer in (*names, PENULTIMATE):
        return layer
    if layer.lstrip("-").isdigit() and -len(names) <= int(layer) < len(names):
        return names[int(layer)]
    raise RecipeError(
        f"no layer {layer!r}{did_you_mean(layer, names)}; there are {', '.join(names)}, {PENULTIMATE}, "
        f"or their numbers '0' to '{len(names) - 1}'"
    )


class Layers:
    """The layers of a network at one checkpoint of its training, in evaluation mode and in the master precision.

    names: as in `layer_names`.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        dataset = checkpoint.dataset
        self.names = layer_names(checkpoint.spec, dataset.shape, dataset.n_classes)
        self.network, self.examples = checkpoint.snapshot.network(), checkpoint.snapshot.examples
        weight = next(self.network.parameters())
        self.device, self.dtype = weight.device, weight.dtype

    def features(self, name: str, low: int = 0, high: int | None = None) -> Tensor | Stream:
        """The layer of the examples low..high-1, flattened: (high - low, d), on the device; see `chosen`."""
        return self.chosen(name, np.arange(low, self.examples.n if high is None else high))

    def chosen(self, name: str, rows: np.ndarray) -> Tensor | Stream:
        """The layer of some examples, flattened: (q, d) for q row numbers that rise, on the device.

        The input is as the network sees it, normalized.  Placements and the penultimate layer are float32 or the master
        precision, the softmax float64, as in float32 most of a well trained network's outputs are the same.  A layer of
        1.5 GiB for all examples is held; of a larger one a Stream comes, whose readings pass through the network again,
        up to that layer.
        """
        first = self._batch(name, 0)
        if self.examples.n * first.shape[1] * first.element_size() > HELD:
            return Stream(len(rows), lambda low, high: self._rows(name, rows[low:high]))
        return self._rows(name, rows)

    def predictions(self) -> np.ndarray:
        """(n,) int16, the class that the network predicts for every example."""
        edges = range(0, self.examples.n, ROWS)
        return torch.cat([self._batch(SOFTMAX, start).argmax(dim=1) for start in edges]).to(torch.int16).cpu().numpy()

    @torch.no_grad()
    def _rows(self, name: str, rows: np.ndarray) -> Tensor:
        """Fill block by block, so that no layer is held twice; blocks without any of the rows are not computed."""
        features: Tensor | None = None
        for start in np.unique(rows - rows % ROWS).tolist():
            low, high = np.searchsorted(rows, (start, start + ROWS))
            batch = self._batch(name, start)
            if features is None:
                features = batch.new_empty(len(rows), batch.shape[1])
            features[low:high] = batch[torch.from_numpy(rows[low:high] - start).to(batch.device)]
        return features

    @torch.no_grad()
    def _batch(self, name: str, start: int) -> Tensor:
        """The layer of the examples start..start + ROWS - 1, or to the last one."""
        images = self.examples.block(start, min(start + ROWS, self.examples.n)).to(self.dtype)
        if name == INPUT:
            return images.flatten(1)
        images = images.contiguous(memory_format=torch.channels_last)
        if name == SOFTMAX:
            return torch.softmax(self.network(images).double(), dim=1)
        return self._hooked(name, images)

    def _hooked(self, name: str, images: Tensor) -> Tensor:
        caught: list[Tensor] = []

        def catch(output: Tensor) -> None:
            caught.append(output.flatten(1).clone())  # a ReLU in place may write over it
            raise _Reached

        if name == PENULTIMATE:
            hook = classifier_of(self.network).register_forward_pre_hook(lambda module, inputs: catch(inputs[0]))
        else:
            module: nn.Module = self.network.get_submodule(name)
            hook = module.register_forward_hook(lambda module, inputs, output: catch(output))
        try:
            self.network(images)
        except _Reached:
            pass
        finally:
            hook.remove()
        return caught[0]


def train_features(checkpoint: Checkpoint, layer: str) -> np.ndarray | Tensor | Stream:
    """(n_train, d) of a layer that a recipe names; "penultimate" as in the compute precision of the training.

    The penultimate layer of a linear network is its input; where that is too large to be held a second time, a Stream.

    Raises:
        RecipeError: no such layer.
    """
    dataset, snapshot, spec = checkpoint.dataset, checkpoint.snapshot, checkpoint.spec
    assert snapshot
    assert spec
    rows, examples = dataset.rows("train"), snapshot.examples
    if layer == PENULTIMATE:
        linear = layer_names(spec, dataset.shape, dataset.n_classes) == (INPUT, SOFTMAX)
        if linear and not examples.prepared:
            return Stream(dataset.n_train, lambda low, high: examples.block(low, high).flatten(1).float())
        return snapshot.features()[rows]
    layers = Layers(checkpoint)
    return layers._rows(find_layer(layer, layers.names), np.arange(rows.start, rows.stop))
