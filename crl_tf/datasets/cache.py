"""Images decoded and resized once, kept in memory or on disk, and gathered from there by index in every epoch.

Not tf.data's own cache, which keeps images in the order of the first epoch and gives them out in it ever after.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.progress import Progress

from crl_tf.datasets.images import decode as decoding
from crl_tf.datasets.pipeline import make_pipeline
from crl_tf.datasets.source import Dataset, Records, Split
from crl_tf.files import write_whole

NONE, MEMORY = "none", "memory"
DECODED_AT_A_TIME = 256
ABANDONED_SECONDS = 3600
"""An unfinished file that has not grown for so long belongs to a process that was killed."""


def cached(dataset: Dataset, image_size: tuple[int, int], where: str) -> Dataset:
    """The dataset with every image decoded and resized, by the same code as the pipeline's and to the same bytes.

    A split that is an array of images of the wanted size already stays as it is, the same object.

    Args:
        dataset: with images as files, or as arrays of another size.
        image_size: height and width.
        where: "none" (the dataset as it is), "memory", or a folder: one `.npy` file per split, written whole or not at all and
            read as it is needed, so that it may be larger than memory. Its name holds a digest of everything that decides
            what is in it – names, sizes and times of the image files, the wanted size, the versions of what decodes – so that
            what is found under it is right, and whatever else stands in the folder stays.
    Returns:
        a dataset whose images are uint8 [n, *image_size, 3].
    Raises:
        ValueError: if `where` is empty, memory is short, or a file of the cache is damaged.
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
    wanted = {name: split for name, split in dataset.splits.items() if not is_ready(split, image_size)}
    if where == NONE or not wanted:
        return dataset
    if where == MEMORY:
        _check_memory(sum(_num_bytes(split, image_size) for split in wanted.values()))
    kept = {}
    with Progress(transient=True, disable=not sys.stdout.isatty()) as progress:
        for name, split in wanted.items():
            task = progress.add_task(f"decoding {name}", total=len(split))

            def advance(count: int, task: int = task) -> None:
                progress.advance(task, count)

            if where == MEMORY:
                images = _in_memory(split, image_size, advance)
            else:
                images = _on_disk(Path(where).expanduser(), dataset.name, name, split, image_size, advance)
            kept[name] = dataclasses.replace(split, images=images)
    return dataclasses.replace(dataset, splits={**dataset.splits, **kept})


def is_ready(split: Split, image_size: tuple[int, int]) -> bool:
    """Whether there is nothing to decode or to resize: an array, or a cache, of images of the wanted size."""
    return split.decoded and split.images.shape[1:3] == tuple(image_size)


def available_memory() -> int | None:
    """Bytes that this process can still take, by the system and by the limit of its container; None where neither tells."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        if limit != "max":
            # What files are buffered in counts as used and is given up on demand.
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            found.append(int(limit) - int(used) + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):
        pass  # another system, or no container
    return min(found, default=None)


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
    """All images in the split's order, uint8 [at most DECODED_AT_A_TIME, *image_size, 3]."""
    pipeline = make_pipeline(split, image_size=image_size, batch_size=DECODED_AT_A_TIME, training=False)
    return (images.numpy() for images, _ in pipeline)


def _in_memory(split: Split, image_size: tuple[int, int], advance: Callable[[int], None]) -> np.ndarray:
    # Filled in place: a list of batches and its concatenation would be twice the size for a moment.
    images, filled = np.empty((len(split), *image_size, 3), np.uint8), 0
    for batch in _decoded(split, image_size):
        images[filled : filled + len(batch)] = batch
        filled += len(batch)
        advance(len(batch))
    return images


def _on_disk(
    folder: Path, dataset: str, name: str, split: Split, image_size: tuple[int, int], advance: Callable[[int], None]
) -> np.ndarray:
    height, width = image_size
    path = folder / f"{dataset}-{name}-{height}x{width}-{_digest(dataset, name, split, image_size)}.npy"
    if not path.exists():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(path)
            _check_space(folder, _num_bytes(split, image_size))
            write_whole(path, lambda partial: _write(partial, split, image_size, advance))
        except OSError as error:
            raise OSError(
                f"cache: folder {folder} must be writable and have room for {_num_bytes(split, image_size) / 1e9:.3g} GB:"
                f" {error.strerror or error}"
            ) from error
    return _open(path, (len(split), height, width, 3))


def _digest(dataset: str, name: str, split: Split, image_size: tuple[int, int]) -> str:
    """Of everything that decides what the cache holds: two caches of one name hold the same bytes."""
    digest = hashlib.blake2b(digest_size=12)
    # Another TensorFlow may bring another JPEG decoder.
    versions = {"decoding": decoding.VERSION, "tensorflow": tf.__version__}
    digest.update(json.dumps([dataset, name, *map(int, image_size), versions]).encode())
    if isinstance(split.images, Records):
        for part in _file_facts(np.array(split.images.shards)):
            digest.update(part)
        for where in (split.images.shard, split.images.offset):
            digest.update(np.ascontiguousarray(where).data)
    elif split.in_files:
        for part in _file_facts(split.images):
            digest.update(part)
    else:
        digest.update(str(split.images.shape).encode())
        digest.update(np.ascontiguousarray(split.images).data)
    return digest.hexdigest()


def _file_facts(paths: np.ndarray) -> Iterable[bytes]:
    def facts(some: np.ndarray) -> bytes:
        found = [(path, os.stat(path)) for path in some.tolist()]
        return "".join(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\n" for path, stat in found).encode()

    # Several questions under way at once: on network storage each takes a millisecond, and there may be a million.
    with ThreadPoolExecutor(16) as pool:
        yield from pool.map(facts, np.array_split(paths, -(-len(paths) // 1000)))


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        # Sooner than after an hour of decoding.
        raise OSError(f"only {free / 1e9:.3g} GB are free")


def _write(partial: Path, split: Split, image_size: tuple[int, int], advance: Callable[[int], None]) -> None:
    # Written, not mapped: a mapped file that meets a full disk ends the process with SIGBUS, an ordinary write with an error.
    with partial.open("xb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(split), *image_size, 3)}
        np.lib.format.write_array_header_1_0(file, header)
        for batch in _decoded(split, image_size):
            file.write(np.ascontiguousarray(batch).data)
            advance(len(batch))
        # Before it gets its name: after a power failure the name could otherwise be there, and the images not.
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
