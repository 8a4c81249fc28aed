"""Whether the images of a table lie in its folder: a table from elsewhere must not open any file of the machine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crl_tf.datasets.tables.columns import ImagePaths, Listing, folders_of, texts
from crl_tf.datasets.tables.table import Table

REMEDY = "--allow_outside_root reads them, if you trust the table"


def refuse_outside(
    table: Table, images: ImagePaths, listings: Mapping[str, Listing], roots: Sequence[str | os.PathLike[str]]
) -> None:
    """Raises ValueError, naming the first row, if an image lies outside of the folders: by its path, or by a link on the way.

    Args:
        listings: of all folders of the images (`listed_folders`).
        roots: the folders; what they are links to counts.
    """
    real = [os.path.join(os.path.realpath(root), "") for root in roots]

    def outside(path: str) -> bool:
        return not any(os.path.join(os.path.realpath(path), "").startswith(root) for root in real)

    folders = folders_of(images)
    of_folder = np.array([outside(folder or ".") for folder in folders.dictionary.to_pylist()], bool)
    wrong = of_folder[folders.indices.to_numpy()]
    # In a folder that forbids listing, each image is asked for.
    unlisted = pa.array([folder for folder, listing in listings.items() if listing.files is None], pa.large_string())
    hidden = images.paths.filter(pc.is_in(folders.cast(pa.large_string()), value_set=unlisted)).to_pylist() if unlisted else []
    links = [path for listing in listings.values() for path in listing.links]
    linked = [path for path in [*links, *hidden] if outside(path)]
    if linked:
        wrong |= pc.is_in(images.paths, value_set=pa.array(texts(linked), pa.large_string())).to_numpy(zero_copy_only=False)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise table.error(
            f"{wrong.sum():,} of {len(table):,} images lie outside of the table's folder, the first:"
            f" {images.names[row].as_py()!r}; {REMEDY}",
            row,
        )
