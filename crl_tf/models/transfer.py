"""Starting from what was learned elsewhere: weights for a backbone, and which of its layers stay as they are."""

from __future__ import annotations

import contextlib
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import keras
import numpy as np
from keras import layers

from crl_tf.models.applications import PREFIX, constructor

BACKBONE = "backbone"
"""The name of the layer that holds all of a network but its preprocessing and its head."""

IMAGENET = "imagenet"


def load_backbone(backbone: keras.Model, pretrained: str, name: str) -> None:
    """Gives a backbone the weights of another, all or none; what does not fit is a ValueError. Heads are never loaded.

    Args:
        backbone: of the network `name`, built with the width and the image size of this run.
        pretrained: where they come from.
            "imagenet": what Keras publishes for keras:NAME, through its own download and cache.
            A file of weights: `.h5` as Keras publishes them (without the classifier: "notop"), or `.weights.h5`.
            A `.keras`: the `model.keras` of a run with the same backbone, or the backbone itself as a model. Keras's safe mode
            stays on: a file with Lambda layers is refused.
        name: of the network, as `build_network` knows it.
    """
    check_pretrained(pretrained, name)
    if pretrained == IMAGENET:
        _copy(_published(backbone, name), backbone, pretrained, name)
        return
    path = Path(pretrained).expanduser()
    if zipfile.is_zipfile(path):
        with _one_error(pretrained, name):
            found = _backbone_of(keras.saving.load_model(path, compile=False))
    elif h5py.is_hdf5(path):
        with _one_error(pretrained, name):
            found = _with_weights_of(path, backbone)
    else:
        raise ValueError(f"pretrained={pretrained} is no file of weights (.h5, .weights.h5, .keras), or not a whole one")
    _copy(found, backbone, pretrained, name)


def check_pretrained(pretrained: str, name: str) -> None:
    """Refuses what cannot be the source of weights for the network `name`, without looking into any file."""
    if pretrained == IMAGENET and not name.startswith(PREFIX):
        raise ValueError(f"pretrained={IMAGENET} is for {PREFIX}NAME only, received it for {name}: pass a file of weights")
    path = Path(pretrained).expanduser()
    if pretrained != IMAGENET and not path.is_file():
        meant = f"; did you mean {path / 'model.keras'}?" if (path / "model.keras").is_file() else ""
        raise ValueError(f"pretrained must be {IMAGENET} or a file, received {pretrained!r}, which is no file{meant}")


def freeze_layers(backbone: keras.Model, count: int) -> None:
    """The first `count` layers that hold weights are not trained; -1: all of them.

    In Keras's order, in which data passes them; those of a model inside are counted one by one. A frozen BatchNormalization
    normalises by its moving statistics, in training too, and leaves them as they are (Keras's semantics).
    """
    there = weighted_layers(backbone)
    if not isinstance(count, int) or not -1 <= count <= len(there):
        raise ValueError(f"freeze must lie in [0, {len(there)}], the layers with weights, or be all (-1), received {count!r}")
    for layer in there if count == -1 else there[:count]:
        layer.trainable = False


def weighted_layers(model: keras.Model) -> list[layers.Layer]:
    """The layers of a model that hold weights, those of models inside it in their place.

    >>> inside = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="a"), layers.ReLU(), layers.Dense(2, name="b")])
    >>> [layer.name for layer in weighted_layers(keras.Sequential([keras.Input((4,)), inside, layers.Dense(1, name="c")]))]
    ['a', 'b', 'c']
    """
    found: list[layers.Layer] = []
    for layer in model.layers:
        found += weighted_layers(layer) if isinstance(layer, keras.Model) else [layer] if layer.weights else []
    return found


def _published(backbone: keras.Model, name: str) -> keras.Model:
    try:
        return constructor(name)(include_top=False, weights=IMAGENET, input_shape=backbone.input_shape[1:], pooling="avg")
    except Exception as error:  # Keras raises Exception itself where a download fails
        address = re.search(r"https?://\S+[\w]", str(error))
        what = address[0] if address else "the file that Keras names above, or on https://keras.io/api/applications,"
        raise ValueError(
            f"pretrained={IMAGENET}: the weights of {name} could not be fetched ({_line(error)}); fetch {what} elsewhere and pass"
            " --pretrained=FILE"
        ) from error


def _backbone_of(model: keras.Model) -> keras.Model:
    network = getattr(model, "network", model)
    inside = [layer for layer in network.layers if layer.name == BACKBONE and isinstance(layer, keras.Model)]
    return inside[0] if inside else network


def _with_weights_of(path: Path, backbone: keras.Model) -> keras.Model:
    """A copy of the backbone with the weights of an HDF5 file, in Keras's form of today or of before."""
    with h5py.File(path, "r") as file:
        legacy = "layer_names" in file.attrs or "layer_names0" in file.attrs or "model_weights" in file
        stored = 0 if legacy else _count_of_weights(file)
    if not legacy and stored != len(backbone.weights):
        raise ValueError(f"it holds {stored} weights, and {len(backbone.weights)} are wanted")
    copy = keras.models.clone_model(backbone)
    for layer in weighted_layers(copy):
        for weight in layer.weights:
            # What the file leaves out is seen by this, whatever Keras says of it.
            weight.assign(np.full(weight.shape, np.nan if "float" in weight.dtype else 0))
    copy.load_weights(path)
    for layer in weighted_layers(copy):
        if not all(np.isfinite(weight.numpy()).all() for weight in layer.weights):
            raise ValueError(f"it leaves weights of {layer.name} out, or they are not finite")
    return copy


def _count_of_weights(file: h5py.File) -> int:
    """Of the layers alone: the state of random generators and the optimizer's are no weights."""
    paths: list[str] = []
    file.visititems(lambda path, found: paths.append(path) if isinstance(found, h5py.Dataset) else None)
    return sum("vars" in parts and not {"seed_generator", "optimizer"} & set(parts) for parts in (p.split("/") for p in paths))


def _copy(source: keras.Model, backbone: keras.Model, pretrained: str, name: str) -> None:
    theirs, ours = weighted_layers(source), weighted_layers(backbone)
    different = [(a, b) for a, b in zip(theirs, ours, strict=False) if _form(a) != _form(b)]
    if len(theirs) != len(ours) or different:
        what = f"it has {len(theirs)} layers with weights, and {len(ours)} are wanted" if len(theirs) != len(ours) else ""
        if different:
            a, b = different[0]
            what += f"{'; ' if what else ''}the first to differ is its {a.name}, {_form(a)}, for {b.name}, {_form(b)}"
        raise ValueError(_mismatch(pretrained, name, what))
    if _flattened(source) != _flattened(backbone):
        # As many numbers in another order: the weights would fit, and meet other places of the image.
        what = f"it was built for another image size: {_flattened(source)} where {_flattened(backbone)} is flattened"
        raise ValueError(_mismatch(pretrained, name, what))
    for a, b in zip(theirs, ours, strict=True):
        for weight, value in zip(b.weights, a.weights, strict=True):
            weight.assign(value)
        if isinstance(b, layers.Normalization):
            b.finalize_state()  # it computes with constants that it makes of its weights


def _flattened(model: keras.Model) -> list[tuple[int, ...]]:
    return [tuple(layer.input.shape[1:]) for layer in model.layers if isinstance(layer, layers.Flatten)]


def _form(layer: layers.Layer) -> str:
    # By type and shapes: names of weights are not always given, and then count up within the process.
    return f"{type(layer).__name__} {', '.join(str(tuple(weight.shape)) for weight in layer.weights)}"


@contextlib.contextmanager
def _one_error(pretrained: str, name: str) -> Iterator[None]:
    # A file can be broken, or malicious, in more ways than Keras and HDF5 have types of errors for.
    try:
        yield
    except Exception as error:
        raise ValueError(_mismatch(pretrained, name, _line(error))) from error


def _mismatch(pretrained: str, name: str, what: str) -> str:
    if name.startswith(PREFIX):
        hint = "; it must be of the same network of keras.applications, without the classifier (notop)"
    else:
        hint = "; it must be of the same network and --width, and of some the same image size"
    return f"pretrained={pretrained} does not fit the backbone of {name}: {what}{hint}"


def _line(error: Exception) -> str:
    """What an error says, in one line that a terminal can take."""
    said = " ".join(str(error).split())
    return f"{said[:400]} …" if len(said) > 400 else said or type(error).__name__
