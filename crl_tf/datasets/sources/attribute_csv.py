"""Images with labels in one table, CSV or Parquet: for data of your own."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crl_tf.datasets.source import SPLITS, Dataset, Split
from crl_tf.datasets.sources.class_warnings import warn_of_classes
from crl_tf.datasets.splitting import stratified_split
from crl_tf.datasets.tables.columns import (
    ImagePaths,
    LabelColumn,
    image_paths,
    in_order,
    label_column,
    listed_folders,
    refuse_duplicates,
    require_files,
)
from crl_tf.datasets.tables.forms import read_coco, wide
from crl_tf.datasets.tables.inside import refuse_outside
from crl_tf.datasets.tables.schema import SHARES, SPLIT_NAMES, Label, OneOf, TableSchema, read_table_schema
from crl_tf.datasets.tables.table import Table, column_names, find_table, is_json, numbers_rows, read_table
from crl_tf.schema import NOT_ANNOTATED, AttributeSchema

OWNER = "attribute_csv"
SCHEMA = "schema.yaml"
RESERVED = ("path", "split", "group")
INDICES = {"", "Unnamed: 0", "__index_level_0__"}
"""What the column of an index is called that pandas writes, and reads and writes again."""


def load_attribute_csv(
    data_dir: str | os.PathLike[str] | None,
    *,
    seed: int = 0,
    schema: str | os.PathLike[str] | None = None,
    check_images: bool = True,
    allow_outside_root: bool = False,
    known: AttributeSchema | None = None,
) -> Dataset:
    """Reads a table with a column of image paths and columns of labels; a YAML file can say what the columns mean.

    Without YAML: the column `path` holds the image paths, relative to the table's folder or absolute; `split` is train, val
    (or validation) or test; the optional `group` names what belongs together (a person, a product). Every further column is a
    label; its classes are the distinct values over all splits, sorted (as numbers if all are integers). An empty cell or a null
    is not annotated (-1). Space around values is dropped. The YAML can change all of this, and labels can be binary or have
    several classes in a cell: see `tables.schema.read_table_schema`.

    Without a column of splits, the split is drawn from the seed: 80, 10 and 10 %, or the shares of the YAML, by
    `splitting.stratified_split`, which keeps groups whole and puts each class into each part if possible.

    Labels in a Parquet file are text, truth values ("false", "true") or whole numbers.

    Args:
        data_dir: the table (.csv, .parquet), or the folder that holds it as `attributes.csv` or `attributes.parquet`.
        seed: of the split, if the table has none.
        schema: the YAML; None: `schema.yaml` beside the table if there is one.
        check_images: whether a missing image file is an error.
        allow_outside_root: read images that lie outside of the folder of the table, or of the `root` of the `schema` that is
            given here, too.
        known: labels and classes of a trained model that is to be measured on the table. Other columns are no labels, a class
            need not occur, splits but `test` may be empty, and rows that are too few for a split are all in `test`.
    Returns:
        images as file paths; labels int16 or int32 [n, L]; with groups, `extras["group"]` int32 [n], -1 = in none.
    Raises:
        FileNotFoundError: if the table or the YAML is missing, or an image that the table names.
        ValueError: if the table is malformed (with the line), an image lies outside of its folder, a label has fewer than 2
            classes or a value that is no class, a split has no row, or a path occurs in two rows.
    Warns:
        UserWarning: if a class that the YAML names has no image, a class is never in training, or a group is in more than one
            of the table's splits.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     rows = [f"{i}.png,{'yes' if i % 5 else 'no'}" for i in range(30)]
    ...     _ = (Path(folder) / "attributes.csv").write_text("\\n".join(["path,worn", *rows]))
    ...     dataset = load_attribute_csv(folder, seed=1, check_images=False)
    >>> dataset.schema.attributes[0].classes
    ('no', 'yes')
    >>> {name: np.bincount(split.labels[:, 0]).tolist() for name, split in dataset.splits.items()}
    {'train': [4, 20], 'validation': [1, 2], 'test': [1, 2]}
    """
    path = find_table(OWNER, data_dir, "attributes")
    if schema is not None:
        meaning = read_table_schema(OWNER, Path(schema))
    else:
        beside = path.parent / SCHEMA
        # A link that leads nowhere is there, too.
        meaning = read_table_schema(OWNER, beside) if os.path.lexists(beside) else TableSchema()
        other = path.parent / "schema.yml"
        if other.exists() and not beside.exists():
            raise ValueError(f"{OWNER}: {other} must be called {SCHEMA}, or be named by --schema={other}")
    images = read_labelled_images(
        OWNER,
        path,
        meaning,
        check_images=check_images,
        allow_outside_root=allow_outside_root,
        root_is_given=schema is not None,
        known=known,
    )

    def draw(labels: np.ndarray) -> dict[str, np.ndarray]:
        shares = meaning.split if isinstance(meaning.split, Mapping) else SHARES
        try:
            return stratified_split(labels, shares, seed, images.groups)
        except ValueError as error:
            if known is not None:
                return {split: np.arange(len(labels) if split == "test" else 0) for split in SPLITS}
            raise ValueError(f"{OWNER}: {path}: {error}; give a split column or more rows") from error

    return images.dataset(draw, training=known is None)


@dataclass(frozen=True)
class LabelledImages:
    """The images and labels of a table.

    splits: indices of each split's rows, if a column has them. groups: int32 [n], -1 = in none; None: no such column.
    """

    owner: str
    images: ImagePaths
    labels: list[LabelColumn]
    splits: Mapping[str, np.ndarray] | None
    groups: np.ndarray | None

    def dataset(self, draw: Callable[[np.ndarray], Mapping[str, np.ndarray]], *, training: bool = True) -> Dataset:
        """The dataset, in the splits of the table or in those that `draw` makes from the labels, integers [n, L].

        Args:
            training: whether a model is to be trained: warns of classes that it does not see. Otherwise only `test` is needed.
        """
        attributes = AttributeSchema(tuple(attribute for column in self.labels for attribute in column.attributes))
        # Stored label by label; the transpose is a view, and made only if the split needs the labels.
        where = self.splits or draw(np.concatenate([column.codes for column in self.labels]).T)
        sizes = [attribute.num_classes for attribute in attributes.attributes]
        splits, counts, width = {}, {}, np.result_type(*(column.codes for column in self.labels))
        for split in SPLITS:
            rows = where[split]
            labels, counts[split] = np.empty((len(rows), len(sizes)), width), []
            columns = (codes for column in self.labels for codes in column.codes)
            for place, (codes, size) in enumerate(zip(columns, sizes, strict=True)):
                # Counted here, where they are contiguous, which is faster than in columns of the result.
                chosen = codes[rows]
                counts[split].append(np.bincount(chosen + 1, minlength=size + 1)[1:])
                labels[:, place] = chosen
            extras = {} if self.groups is None else {"group": self.groups[rows]}
            splits[split] = Split(self.images.take(rows), labels, extras)
        if training:
            warn_of_classes(self.owner, attributes, counts)
        return Dataset(self.owner, attributes, splits, self.splits is None, SPLITS if training else ("test",))


def read_labelled_images(
    owner: str,
    path: Path,
    meaning: TableSchema,
    *,
    check_images: bool,
    allow_outside_root: bool = False,
    root_is_given: bool = False,
    known: AttributeSchema | None = None,
) -> LabelledImages:
    """Reads a table by its schema; errors begin with `owner`, the dataset.

    Args:
        root_is_given: whether the user named the schema, so that its root may be any folder. A schema that lay beside the table
            may name no other folder, as the table may not.
        known: as in `load_attribute_csv`.
    Raises:
        FileNotFoundError, ValueError: as `load_attribute_csv`.
    """
    table, labels, split, group = _coco(owner, path, meaning) if is_json(path) else _rows(owner, path, meaning)
    images = image_paths(table, meaning.path, path.parent / meaning.root, meaning.suffix)
    splits = None if split is None else _splits(table, split, SPLITS if known is None else ("test",))
    refuse_duplicates(table, images, splits)
    listings = listed_folders(images) if check_images or not allow_outside_root else {}
    if not allow_outside_root:
        refuse_outside(table, images, listings, [path.parent, *([path.parent / meaning.root] if root_is_given else [])])
    if check_images:
        require_files(table, images, listings)
    if known is not None:
        labels = _with_known_classes(table, labels, meaning, known)
    columns = [label_column(table, name, label, meaning.missing, normalize=meaning.normalize) for name, label in labels.items()]
    groups = None if group is None else _groups(table, group, meaning)
    if groups is not None and splits is not None:
        _warn_of_groups(owner, groups, splits)
    where = None if splits is None else {name: np.flatnonzero(splits == place) for place, name in enumerate(SPLITS)}
    return LabelledImages(owner, images, columns, where, groups)


def _with_known_classes(
    table: Table, labels: Mapping[str, Label], meaning: TableSchema, known: AttributeSchema
) -> dict[str, Label]:
    """The labels that are known, with their known classes first; those whose classes the YAML gives stay as they are."""
    classes = {attribute.name: attribute.classes for attribute in known.attributes}
    chosen = {}
    for name, label in labels.items():
        if label == OneOf() and name in classes:
            others = {value for value in table.categories(name).values if value not in {*classes[name], *meaning.missing}}
            chosen[name] = OneOf((*classes[name], *in_order(others)))
        # A column with several classes in a cell is known by them: tags=striped.
        elif name in classes or any(of_cell.startswith(f"{name}=") for of_cell in classes):
            chosen[name] = label
    return chosen or dict(labels)


def _coco(owner: str, path: Path, meaning: TableSchema) -> tuple[Table, dict[str, Label], None, None]:
    given = [key for key in ("labels", "group", "long") if getattr(meaning, key)]
    given += ["split"] if isinstance(meaning.split, str) else []
    if given:
        raise ValueError(f"{owner}: {path}: {given[0]} must not be given in the YAML for COCO's JSON, which has no columns")
    return *read_coco(owner, path, meaning.path), None, None


def _rows(owner: str, path: Path, meaning: TableSchema) -> tuple[Table, dict[str, Label], str | None, str | None]:
    """The rows of a table, its labels, and the columns of split and group, if it has them."""
    names = _named_columns(owner, path, meaning)
    split = meaning.split if isinstance(meaning.split, str) else "split" if meaning.split is None and "split" in names else None
    group = meaning.group or ("group" if "group" in names else None)
    if meaning.long is not None and meaning.labels is not None:
        raise ValueError(f"{owner}: {path}: labels must not be given in the YAML beside long, whose rows name them")
    long = [] if meaning.long is None else list(meaning.long.values())
    labels = {} if long else _labels(owner, path, names, meaning, {meaning.path, "split", split, group})
    needed = list(dict.fromkeys([meaning.path, *filter(None, (split, group)), *labels, *long]))
    absent = [name for name in needed if name not in names]
    if absent:
        raise ValueError(
            f"{owner}: {path}: missing column(s) {absent}, received {names}; the YAML beside it says which column is what"
        )
    table = read_table(owner, path, needed, texts=[meaning.path])
    if meaning.long is not None:
        table, labels = wide(table, meaning.path, meaning.long, [name for name in (split, group) if name])
    return table, labels, split, group


def _named_columns(owner: str, path: Path, meaning: TableSchema) -> list[str]:
    """The names of the columns without that of an index, which has no name, or that of pandas, and numbers the rows."""
    names = column_names(owner, path)
    for name in set(names) & INDICES - {*meaning.ignore, *(meaning.labels or ())}:
        if numbers_rows(read_table(owner, path, [name], texts=[]).categories(name)):
            names.remove(name)
        elif name == "":
            raise ValueError(
                f"{owner}: {path}: column {names.index('') + 1} has no name, and does not number the rows; name it, or"
                ' write ignore: [""] in the YAML'
            )
    return names


def _labels(owner: str, path: Path, names: list[str], meaning: TableSchema, taken: set[str | None]) -> dict[str, Label]:
    unknown = [name for name in meaning.ignore if name not in names]
    if unknown:
        raise ValueError(f"{owner}: {path}: ignore must name columns of the table, received {unknown}; there are {names}")
    if meaning.labels is not None:
        if meaning.path in meaning.labels:
            raise ValueError(f"{owner}: {path}: labels: {meaning.path!r} is the column of the image paths")
        return dict(meaning.labels)
    near = next((name for name in names if name not in taken and name not in meaning.ignore and name.lower() in RESERVED), None)
    if near is not None:
        raise ValueError(
            f"{owner}: {path}: column {near!r} is no label but nearly {near.lower()!r}: rename it, write {near.lower()}: {near}"
            " in the YAML, or ignore it there"
        )
    # The column `split` is no label, even if shares are given instead.
    labels = {name: OneOf() for name in names if name not in taken and name not in meaning.ignore}
    if not labels and meaning.path in names:
        besides = " and ".join(name for name in names if name in taken)
        raise ValueError(f"{owner}: {path}: at least one column beside {besides} must be a label")
    return labels


def _splits(table: Table, name: str, needed: Sequence[str]) -> np.ndarray:
    """The split of each row, as its place in `SPLITS`; ValueError where a needed one has none."""
    column = table.categories(name)
    for value in column.values:
        if value not in SPLIT_NAMES:
            raise table.error(f"{name} must be one of {sorted(SPLIT_NAMES)}, received {value!r}", column.first(value))
    null = np.flatnonzero(column.codes < 0)
    if null.size:
        raise table.error(f"{name} must be one of {sorted(SPLIT_NAMES)}, received nothing", int(null[0]))
    places = [SPLITS.index(SPLIT_NAMES[value]) for value in column.values]
    absent = [split for split in needed if SPLITS.index(split) not in places]
    if absent:
        raise table.error(
            f"every split needs at least one row, none for {absent}; for a split drawn from the seed, take the column {name!r}"
            " out, or write split: {train: 0.8, validation: 0.1, test: 0.1} in the YAML"
        )
    return np.array(places, np.int8)[column.codes]


def _groups(table: Table, name: str, meaning: TableSchema) -> np.ndarray:
    """The number of each row's group, int32 [n]; -1 for rows without a group."""
    column = table.categories(name)
    # The code -1 of a null selects the last entry.
    none = np.array([*(value in ("", *meaning.missing) for value in column.values), True])
    used, first = np.unique(column.codes[~none[column.codes]], return_index=True)
    # Numbered by first rows: a Parquet file may list the same values in another order.
    number = np.full(len(none), NOT_ANNOTATED, np.int32)
    number[used[np.argsort(first)]] = np.arange(len(used))
    return number[column.codes]


def _warn_of_groups(owner: str, groups: np.ndarray, splits: np.ndarray) -> None:
    pairs = np.unique(groups[groups >= 0].astype(np.int64) * len(SPLITS) + splits[groups >= 0])
    distinct, times = np.unique(pairs // len(SPLITS), return_counts=True)
    if (times > 1).any():
        warnings.warn(
            f"{owner}: {(times > 1).sum():,} of {len(distinct):,} groups stand in more than one split of the table; figures of"
            " the test will flatter. A split drawn from the seed keeps groups whole",
            stacklevel=4,
        )
