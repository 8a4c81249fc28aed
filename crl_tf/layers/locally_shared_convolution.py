"""A convolution whose filters are shared within small regions of its output only (Sun et al., 2014)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from crl_tf.serialization import registered


@registered
class LocallySharedConv2D(keras.layers.Layer):
    """A convolution without padding and with stride 1 that has filters and biases of its own for each region of its output.

    Regions are `region` x `region` output positions, from the upper left on; those at the lower and right edge can be smaller.
    With region 1 it is a locally connected layer; with a region as large as the output, an ordinary convolution.

    The kernel is [rows of regions, columns of regions, kernel_size, kernel_size, C, filters], the bias [rows, columns, filters].
    The kernel starts by He's rule for the inputs of one filter; biases start at 0.

    Args:
        filters: of each region.
        kernel_size: height and width of a filter.
        region: height and width of a region.
        activation: as Keras names it; None for none.
    Input and output:
        [B, H, W, C] with H and W known, to [B, H - kernel_size + 1, W - kernel_size + 1, filters], in the policy's type.

    >>> layer = LocallySharedConv2D(60, 3, region=2)
    >>> tuple(layer(tf.zeros([1, 12, 10, 40])).shape), tuple(layer.kernel.shape), tuple(layer.bias.shape)
    ((1, 10, 8, 60), (5, 4, 3, 3, 40, 60), (5, 4, 60))
    """

    def __init__(self, filters: int, kernel_size: int, region: int = 1, activation: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name, value in (("filters", filters), ("kernel_size", kernel_size), ("region", region)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of 1 or more, received {value!r}")
        self.filters, self.kernel_size, self.region = filters, kernel_size, region
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: Sequence[int | None]) -> None:
        sides, channels = tuple(input_shape[1:3]), input_shape[3]
        if None in sides or min(sides) < self.kernel_size:
            raise ValueError(f"height and width must be known, and kernel_size ({self.kernel_size}) or more, received {sides}")
        inputs = self.kernel_size**2 * channels
        rows, columns = (math.ceil((side - self.kernel_size + 1) / self.region) for side in sides)
        self.kernel = self.add_weight(
            shape=(rows, columns, self.kernel_size, self.kernel_size, channels, self.filters),
            # For one region: "he_normal" would count the regions as inputs.
            initializer=keras.initializers.RandomNormal(stddev=(2.0 / inputs) ** 0.5),
            name="kernel",
        )
        self.bias = self.add_weight(shape=(rows, columns, self.filters), initializer="zeros", name="bias")

    def call(self, images: tf.Tensor) -> tf.Tensor:
        size, region = self.kernel_size, self.region
        rows, columns = self.kernel.shape[:2]
        height, width = (side - size + 1 for side in images.shape[1:3])
        inputs = size**2 * images.shape[3]
        # Positions come before the batch, so that rows and columns are moved in blocks. Zeros complete the last regions.
        x = tf.transpose(images, [1, 2, 0, 3])
        x = tf.pad(x, [[0, rows * region - height], [0, columns * region - width], [0, 0], [0, 0]])
        # The inputs of each position, [rows * region, columns * region, B, inputs]: first along a row, then along a column.
        # With tf.slice, whose gradient pads; that of indexing is several times as slow on a CPU.
        x = tf.concat([tf.slice(x, [0, j, 0, 0], [-1, columns * region, -1, -1]) for j in range(size)], axis=-1)
        x = tf.concat([tf.slice(x, [i, 0, 0, 0], [rows * region, -1, -1, -1]) for i in range(size)], axis=-1)
        if region > 1:
            x = tf.transpose(tf.reshape(x, [rows, region, columns, region, -1]), [0, 2, 1, 3, 4])
        kernel = tf.reshape(self.kernel, [rows * columns, inputs, self.filters])
        bias = tf.reshape(self.bias, [rows * columns, 1, self.filters])
        x = tf.matmul(tf.reshape(x, [rows * columns, -1, inputs]), kernel) + bias
        x = tf.transpose(tf.reshape(x, [rows, columns, region, region, -1, self.filters]), [4, 0, 2, 1, 3, 5])
        x = tf.reshape(x, [-1, rows * region, columns * region, self.filters])
        return self.activation(tf.slice(x, [0, 0, 0, 0], [-1, height, width, -1]))

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        height, width = (side - self.kernel_size + 1 for side in input_shape[1:3])
        return (input_shape[0], height, width, self.filters)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "region": self.region,
            "activation": keras.activations.serialize(self.activation),
        }
