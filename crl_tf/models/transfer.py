"""Pretrained weights for a backbone, and freezing its layers."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Literal

import h5py
import keras
import numpy as np
from keras import layers

from crl_tf.models.applications import PREFIX, constructor
from crl_tf.text import shortened

BACKBONE = "backbone"
"""The name of the layer that holds everything of a network but its preprocessing and its head."""

IMAGENET = "imagenet"

SPARE_BYTES = 1 << 28
"""Bytes that a .keras file may unpack to beside 16 numbers for each of the backbone's weights."""


def load_backbone(backbone: keras.Model, pretrained: str, name: str) -> None:
    """Gives a backbone pretrained weights: all of them, or none and a ValueError. Heads are never loaded.

    Args:
        backbone: of the network `name`, built with the width and the image size of this run.
        pretrained: the source.
            "imagenet": what Keras publishes for keras:NAME, through its own download and cache.
            A file of weights: `.h5` as Keras publishes them (without the classifier: "notop"), or `.weights.h5`.
            A `.keras` file: the `model.keras` of a run with the same backbone, or the backbone itself as a model. Keras's safe
            mode stays on: a file with Lambda layers is refused.
        name: as `build_network` takes it.
    """
    check_pretrained(pretrained, name)
    if pretrained == IMAGENET:
        _copy(_published(backbone, name), backbone, pretrained, name)
        return
    try:
        source = _read(Path(pretrained).expanduser(), backbone)
    except Exception as error:  # a file can be broken, or malicious, in more ways than Keras and HDF5 have types of errors for
        raise ValueError(_mismatch(pretrained, name, shortened(str(error) or type(error).__name__, 400))) from error
    if source is None:
        raise ValueError(f"pretrained={pretrained} is no file of weights (.h5, .weights.h5, .keras), or not a whole one")
    _copy(source, backbone, pretrained, name)


def check_pretrained(pretrained: str, name: str) -> None:
    """Raises ValueError unless `pretrained` can be the source of weights for the network `name`. Reads no file."""
    if pretrained == IMAGENET and not name.startswith(PREFIX):
        raise ValueError(f"pretrained={IMAGENET} is for {PREFIX}NAME only, received it for {name}: pass a file of weights")
    path = Path(pretrained).expanduser()
    if pretrained != IMAGENET and not path.is_file():
        meant = f"; did you mean {path / 'model.keras'}?" if (path / "model.keras").is_file() else ""
        raise ValueError(f"pretrained must be {IMAGENET} or a file, received {pretrained!r}, which is no file{meant}")


def freeze_layers(backbone: keras.Model, count: int | Literal["all"]) -> None:
    """Stops the first `count` layers with weights from training.

    The order is Keras's, in which data pass the layers; those of a model inside are counted one by one. A frozen
    BatchNormalization normalises by its moving statistics, in training too, and does not change them (Keras's semantics).
    """
    with_weights = weighted_layers(backbone)
    if count != "all" and (not isinstance(count, int) or not 0 <= count <= len(with_weights)):
        raise ValueError(f"freeze must be 'all' or in [0, {len(with_weights)}], the layers with weights, received {count!r}")
    for layer in with_weights if count == "all" else with_weights[:count]:
        layer.trainable = False


def weighted_layers(model: keras.Model) -> list[layers.Layer]:
    """The layers of a model that have weights, in order, those of models inside it included.

    >>> inside = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="a"), layers.ReLU(), layers.Dense(2, name="b")])
    >>> [layer.name for layer in weighted_layers(keras.Sequential([keras.Input((4,)), inside, layers.Dense(1, name="c")]))]
    ['a', 'b', 'c']
    """
    with_weights: list[layers.Layer] = []
    for layer in model.layers:
        with_weights += weighted_layers(layer) if isinstance(layer, keras.Model) else [layer] if layer.weights else []
    return with_weights


def _published(backbone: keras.Model, name: str) -> keras.Model:
    try:
        return constructor(name)(include_top=False, weights=IMAGENET, input_shape=backbone.input_shape[1:], pooling="avg")
    except Exception as error:  # Keras raises Exception itself where a download fails
        address = re.search(r"https?://\S+[\w]", str(error))
        what = address[0] if address else "the file that Keras names above, or on https://keras.io/api/applications,"
        reason = shortened(str(error) or type(error).__name__, 400)
        raise ValueError(
            f"pretrained={IMAGENET}: the weights of {name} could not be fetched ({reason}); fetch {what} elsewhere and"
            " pass --pretrained=FILE"
        ) from error


def _read(path: Path, backbone: keras.Model) -> keras.Model | None:
    """The backbone in a file, or None if it is neither a .keras file nor HDF5."""
    if zipfile.is_zipfile(path):
        _refuse_bomb(path, backbone)
        model = keras.saving.load_model(path, compile=False)
        network = getattr(model, "network", model)
        backbones = [layer for layer in network.layers if layer.name == BACKBONE and isinstance(layer, keras.Model)]
        return backbones[0] if backbones else network
    return _with_weights_of(path, backbone) if h5py.is_hdf5(path) else None


def _refuse_bomb(path: Path, backbone: keras.Model) -> None:
    """Refuses a .keras file that unpacks to far more than a model with this backbone and an optimizer can take."""
    with zipfile.ZipFile(path) as file:
        unpacked = sum(part.file_size for part in file.infolist())
    most = SPARE_BYTES + 16 * 4 * backbone.count_params()
    if unpacked > most:
        raise ValueError(f"it unpacks to {unpacked:,} bytes, and at most {most:,} are read for this network")


def _with_weights_of(path: Path, backbone: keras.Model) -> keras.Model:
    """A copy of the backbone with the weights of an HDF5 file, in Keras's present or legacy format."""
    with h5py.File(path, "r") as file:
        legacy = "layer_names" in file.attrs or "layer_names0" in file.attrs or "model_weights" in file
        stored = None if legacy else _count_of_weights(file)
    if stored not in (None, len(backbone.weights)):
        raise ValueError(f"it holds {stored} weights, and {len(backbone.weights)} are wanted")
    copy = keras.models.clone_model(backbone)
    for layer in weighted_layers(copy):
        for weight in layer.weights:
            # A weight that the file leaves out stays NaN: Keras does not always report it.
            weight.assign(np.full(weight.shape, np.nan if "float" in weight.dtype else 0))
    copy.load_weights(path)
    for layer in weighted_layers(copy):
        if not all(np.isfinite(weight.numpy()).all() for weight in layer.weights):
            raise ValueError(f"it leaves weights of {layer.name} out, or they are not finite")
    return copy


def _count_of_weights(file: h5py.File) -> int:
    """The number of weights of layers: the state of random generators and that of the optimizer are none."""
    paths: list[str] = []
    file.visititems(lambda path, item: paths.append(path) if isinstance(item, h5py.Dataset) else None)
    return sum("vars" in parts and not {"seed_generator", "optimizer"} & set(parts) for parts in (p.split("/") for p in paths))


def _copy(source: keras.Model, backbone: keras.Model, pretrained: str, name: str) -> None:
    sources, targets = weighted_layers(source), weighted_layers(backbone)
    different = [pair for pair in zip(sources, targets, strict=False) if _form(pair[0]) != _form(pair[1])]
    problems = []
    if len(sources) != len(targets):
        problems.append(f"it has {len(sources)} layers with weights, and {len(targets)} are wanted")
    if different:
        first, wanted = different[0]
        problems.append(f"the first to differ is its {first.name}, {_form(first)}, for {wanted.name}, {_form(wanted)}")
    if not problems and _flattened(source) != _flattened(backbone):
        # As many numbers in another order: the weights would fit, and meet other places of the image.
        problems.append(f"it was built for another image size: {_flattened(source)} where {_flattened(backbone)} is flattened")
    if problems:
        raise ValueError(_mismatch(pretrained, name, "; ".join(problems)))
    for layer, target in zip(sources, targets, strict=True):
        for weight, value in zip(target.weights, layer.weights, strict=True):
            weight.assign(value)
        if isinstance(target, layers.Normalization):
            target.finalize_state()  # it computes with constants that it derives from its weights


def _flattened(model: keras.Model) -> list[tuple[int, ...]]:
    return [tuple(layer.input.shape[1:]) for layer in model.layers if isinstance(layer, layers.Flatten)]


def _form(layer: layers.Layer) -> str:
    # By type and shapes: names of weights are not always set, and Keras numbers them within the process.
    return f"{type(layer).__name__} {', '.join(str(tuple(weight.shape)) for weight in layer.weights)}"


def _mismatch(pretrained: str, name: str, what: str) -> str:
    if name.startswith(PREFIX):
        hint = "; it must be of the same network of keras.applications, without the classifier (notop)"
    else:
        hint = "; it must be of the same network and --width, and of some the same image size"
    return f"pretrained={pretrained} does not fit the backbone of {name}: {what}{hint}"
