"""Decodes and resizes images once and keeps them in memory or on disk, from where every epoch reads them by index.

tf.data's own cache will not do: it repeats the images in the order of the first epoch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from crl_tf.datasets.images import decode as decoding
from crl_tf.datasets.pipeline import make_pipeline
from crl_tf.datasets.source import Dataset, Records, Split, file_stats
from crl_tf.files import write_whole
from crl_tf.progress import SILENT, Progress

NONE, MEMORY = "none", "memory"
DECODED_AT_A_TIME = 256
ABANDONED_SECONDS = 3600
"""An unfinished file that has not grown for so long was left by a process that was killed."""


def cached(dataset: Dataset, image_size: tuple[int, int], where: str, *, progress: Progress = SILENT) -> Dataset:
    """The dataset with every image decoded and resized, to the same bytes as by the pipeline.

    A split that is an array of images of the wanted size stays the same object.

    Args:
        dataset: with images as files, records, or arrays of another size.
        image_size: height and width.
        where: "none" (returns the dataset as it is), "memory", or a folder. A folder holds one `.npy` file per split, written
            atomically and memory-mapped, so that it may be larger than memory. Its name holds a digest of everything that decides
            its content (names, sizes and times of the image files, the wanted size, the versions of the decoders), so that an
            outdated file is never used. Other files in the folder are left alone.
        progress: receives the progress, batch by batch.
    Returns:
        a dataset whose images are uint8 [n, *image_size, 3].
    Raises:
        ValueError: if `where` is empty, memory is too small, or a file of the cache is damaged.
        OSError: if the folder cannot be written to, or has too little space.
        tf.errors.InvalidArgumentError: with the file's name, for an image that cannot be decoded.

    >>> from crl_tf.schema import Attribute, AttributeSchema
    >>> split = Split(np.zeros((3, 16, 16, 3), np.uint8), np.zeros((3, 1), np.int32))
    >>> schema = AttributeSchema((Attribute("colour", ("red", "blue")),))
    >>> dataset = Dataset("mine", schema, {"train": split, "validation": split, "test": split})
    >>> cached(dataset, (8, 8), "memory").splits["train"].images.shape
    (3, 8, 8, 3)
    """
    if not where:
        raise ValueError(f"cache must be {NONE!r}, {MEMORY!r} or a folder, received {where!r}")
    to_decode = {name: split for name, split in dataset.splits.items() if not is_ready(split, image_size)}
    if where == NONE or not to_decode:
        return dataset
    if where == MEMORY:
        _check_memory(sum(_num_bytes(split, image_size) for split in to_decode.values()))
    splits = dict(dataset.splits)
    for name, split in to_decode.items():
        batches = _tracked(name, split, image_size, progress)
        if where == MEMORY:
            images = _in_memory(split, image_size, batches)
        else:
            images = _on_disk(Path(where).expanduser(), dataset.name, name, split, image_size, batches)
        splits[name] = dataclasses.replace(split, images=images)
    return dataclasses.replace(dataset, splits=splits)


def is_ready(split: Split, image_size: tuple[int, int]) -> bool:
    """Whether the images are an array, or a cache, of the wanted size: there is nothing to decode or resize."""
    return split.decoded and split.images.shape[1:3] == tuple(image_size)


def available_memory() -> int | None:
    """Bytes that this process can still allocate, by the system and by its container's limit; None if neither is known."""
    limits = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        if limit != "max":
            # Buffers of files count as used and are released on demand.
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            limits.append(int(limit) - int(used) + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):
        pass  # another system, or no container
    return min(limits, default=None)


def _num_bytes(split: Split, image_size: tuple[int, int]) -> int:
    return len(split) * image_size[0] * image_size[1] * 3


def _check_memory(needed: int) -> None:
    available = available_memory()
    if available is not None and needed > available:
        raise ValueError(
            f"cache: memory must have room for the decoded images, {needed / 1e9:.3g} GB; {available / 1e9:.3g} GB are"
            " available. Pass a folder instead, --cache=FOLDER"
        )


def _decoded(split: Split, image_size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Batches of all images in the split's order, uint8 [at most DECODED_AT_A_TIME, *image_size, 3]."""
    pipeline = make_pipeline(split, image_size=image_size, batch_size=DECODED_AT_A_TIME, training=False)
    return (images.numpy() for images, _ in pipeline)


def _tracked(name: str, split: Split, image_size: tuple[int, int], progress: Progress) -> Iterator[np.ndarray]:
    # A generator, so that nothing is decoded for a cache file that exists.
    yield from progress.track(_decoded(split, image_size), f"decoding {name}", total=-(-len(split) // DECODED_AT_A_TIME))


def _in_memory(split: Split, image_size: tuple[int, int], batches: Iterable[np.ndarray]) -> np.ndarray:
    # Filled in place: concatenating a list of batches would take twice the memory for a moment.
    images, filled = np.empty((len(split), *image_size, 3), np.uint8), 0
    for batch in batches:
        images[filled : filled + len(batch)] = batch
        filled += len(batch)
    return images


def _on_disk(
    folder: Path, dataset: str, name: str, split: Split, image_size: tuple[int, int], batches: Iterable[np.ndarray]
) -> np.ndarray:
    height, width = image_size
    shape = (len(split), height, width, 3)
    path = folder / f"{dataset}-{name}-{height}x{width}-{_digest(dataset, name, split, image_size)}.npy"
    if not path.exists():
        size = _num_bytes(split, image_size)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(path)
            check_free_space(folder, size)
            write_whole(path, lambda partial: _write(partial, shape, batches))
        except OSError as error:
            raise OSError(
                f"cache: folder {folder} must be writable and have room for {size / 1e9:.3g} GB: {error.strerror or error}"
            ) from error
    return _open(path, shape)


def _digest(dataset: str, name: str, split: Split, image_size: tuple[int, int]) -> str:
    """A digest of everything that decides the content of a cache file."""
    digest = hashlib.blake2b(digest_size=12)
    # Another TensorFlow may bring another JPEG decoder.
    versions = {"decoding": decoding.VERSION, "tensorflow": tf.__version__}
    digest.update(json.dumps([dataset, name, *map(int, image_size), versions]).encode())
    images, arrays = split.images, []
    if isinstance(images, Records):
        files, arrays = np.array(images.shards), [images.shard, images.offset]
    elif split.in_files:
        files = images
    else:
        digest.update(str(images.shape).encode())
        files, arrays = (), [images]
    if len(files):
        for path, stat in file_stats(files):
            digest.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def check_free_space(folder: Path, needed: int) -> None:
    """Raises OSError if the file system of a folder has fewer free bytes, before hours of work fill it."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"only {free / 1e9:.3g} GB are free")


def _write(partial: Path, shape: tuple[int, ...], batches: Iterable[np.ndarray]) -> None:
    # Written, not mapped: on a full disk a mapped file ends the process with SIGBUS, an ordinary write raises an error.
    with partial.open("xb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for batch in batches:
            file.write(np.ascontiguousarray(batch).data)
        # Before the rename: after a power failure the file could otherwise have its name but not its content.
        file.flush()
        os.fsync(file.fileno())


def _remove_abandoned(path: Path) -> None:
    for partial in path.parent.glob(f".partial-*-{path.name}"):
        if time.time() - partial.stat().st_mtime > ABANDONED_SECONDS:
            partial.unlink(missing_ok=True)


def _open(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
        whole = images.dtype == np.uint8 and images.shape == shape
    except (ValueError, EOFError) as error:
        raise ValueError(f"cache: {path} is damaged ({error}): delete it") from error
    if not whole:
        raise ValueError(
            f"cache: {path} is damaged (uint8 {list(shape)} expected, {images.dtype} {list(images.shape)}): delete it"
        )
    return images
