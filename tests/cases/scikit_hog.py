"""HOG features as scikit-image computes them."""

import numpy as np
from skimage.feature import hog

from crl_tf.layers.hog import BLOCK, CELL, ORIENTATIONS


def hog_of_images(images):
    """Images [n, H, W, 3] in [0, 255] to float32 [n, features], with the settings of the layer `HOG`."""
    settings = {"orientations": ORIENTATIONS, "pixels_per_cell": (CELL, CELL), "cells_per_block": (BLOCK, BLOCK)}
    rows = [hog(image, **settings, block_norm="L2-Hys", channel_axis=-1) for image in images]
    return np.array(rows, np.float32).reshape(len(images), -1)
