"""Tables as people have them: an index, lists in cells, two spellings, the long form, COCO's JSON, other files than CSV."""

import csv
import io
import json
import os
import re
import warnings
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from crl_tf.datasets import load_dataset
from crl_tf.datasets.sources.attribute_csv import load_attribute_csv


def write(folder, rows, schema=None):
    (folder / "attributes.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    if schema is not None:
        (folder / "schema.yaml").write_text(schema)
    return folder


def loaded(folder):
    """By image, the classes of its labels by name; None: not annotated."""
    dataset = load_attribute_csv(folder, check_images=False)
    names = {}
    for split in dataset.splits.values():
        for path, row in zip(split.images, split.labels, strict=True):
            classes = zip(dataset.schema.attributes, row.tolist(), strict=True)
            names[path.rpartition("/")[2]] = {a.name: a.classes[k] if k >= 0 else None for a, k in classes}
    return names


def zipped(name):
    """A zip archive that holds a file of this name."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(name, "")
    return content.getvalue()


def plain_rows(count, value):
    return [f"{i}.png,{value(i)}" for i in range(count)]


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
@pytest.mark.parametrize("index", [lambda i: i, lambda i: i + 1, lambda i: 2 * i, lambda i: (7 * i) % 12])
def test_an_index_is_no_label(tmp_path, name, index):
    rows = enumerate(plain_rows(12, lambda i: "sml"[i % 3]))
    write(tmp_path, [f"{name},path,size", *(f"{index(i)},{row}" for i, row in rows)])
    assert loaded(tmp_path)["4.png"] == {"size": "m"}


@pytest.mark.parametrize("index", [lambda i: i // 2, lambda i: i / 2, lambda i: "" if i == 3 else i])
def test_a_column_without_a_name_that_is_no_index_is_refused(tmp_path, index):
    write(tmp_path, [",path,size", *(f"{index(i)},{row}" for i, row in enumerate(plain_rows(12, lambda i: "sml"[i % 3])))])
    with pytest.raises(ValueError, match=r"column 1 has no name, and does not number the rows; .* write ignore: \[\"\"\]"):
        loaded(tmp_path)
    write(tmp_path, (tmp_path / "attributes.csv").read_text().splitlines(), 'ignore: [""]')
    assert loaded(tmp_path)["4.png"] == {"size": "m"}


@pytest.mark.parametrize(
    "content, what",
    [
        ("path,a\n".encode("utf-16"), "UTF-16; save it as UTF-8"),
        ("path,a\n".encode("utf-16-le"), "UTF-16; save it as UTF-8"),
        (zipped("xl/workbook.xml"), r"an Excel workbook \(.xlsx\); save the sheet as CSV"),
        (zipped("content.xml"), r"an OpenDocument sheet \(.ods\)"),
        (zipped("a.csv"), "a zip archive; unpack it"),
        (b"PK\x03\x04rest", "a damaged zip archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", r"an Excel workbook \(.xls\)"),
        (b"\x1f\x8b\x08", "compressed by gzip; unpack it"),
        (b"PAR1rest", "a Parquet file; give its name the ending .parquet"),
        (b"<!DOCTYPE html><html>", "a page of HTML; fetch the table itself"),
        (b'{"images": []}', "JSON; a COCO file must end in .json"),
        (b"path,a\n\x00\x01\x00\x00", "binary; save the sheet as CSV"),
    ],
)
def test_other_files_are_named_for_what_they_are(tmp_path, content, what):
    (tmp_path / "attributes.csv").write_bytes(content)
    with pytest.raises(ValueError, match=f"must be CSV in UTF-8, received {what}"):
        load_attribute_csv(tmp_path)


@pytest.mark.parametrize("cells", [["['rust', 'scab']", "['rust']", "[]"], ['["rust","scab"]', '["rust"]', "[]"]])
def test_lists_in_cells_are_one_binary_label_for_each_of_their_classes(tmp_path, cells):
    with open(tmp_path / "attributes.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "tags"], *([f"{i}.png", cells[i % 3]] for i in range(12)), ["12.png", ""]])
    names = loaded(tmp_path)
    assert names["0.png"] == {"tags=rust": "present", "tags=scab": "present"}
    assert names["1.png"] == {"tags=rust": "present", "tags=scab": "absent"}
    assert names["2.png"] == {"tags=rust": "absent", "tags=scab": "absent"}
    assert names["12.png"] == {"tags=rust": None, "tags=scab": None}


@pytest.mark.parametrize(
    "cell, schema, message",
    [
        ("rust", None, r"line 6: label 'tags' holds lists, so that each cell must be one, .*; received 'rust'"),
        ("[__import__('os')]", None, r"line 6: label 'tags' holds lists.*received .\[__import__\('os'\)\]"),
        ("[['a']]", None, r"received .\[\['a'\]\]"),
        ("['a' 'b']", None, r"received .\['a' 'b'\]"),
        ("['a']", "labels: {tags: {separator: ';'}}", "which need no separator: leave it out of labels"),
    ],
)
def test_cells_that_are_lists_in_part_or_no_lists_of_texts_are_refused(tmp_path, cell, schema, message):
    write(tmp_path, ["path,tags", *(f"{i}.png,['a']" for i in range(4)), f'4.png,"{cell}"', "5.png,['b']"], schema)
    with pytest.raises(ValueError, match=message):
        loaded(tmp_path)


SPELLED = ["Men", "men", "men", "Women", "1", "1.0", "1.0", "TRUE", "true"]


def test_lists_of_items_of_their_own_are_no_labels(tmp_path):
    write(tmp_path, ["path,user,size", *(f"{i}.png,['u{i}'],{'sml'[i % 3]}" for i in range(1200))])
    with pytest.raises(ValueError, match=r"column 'user' must hold classes that several images have, received 1,200 in"):
        with pytest.warns(UserWarning, match="column 'user' has 1,200 classes in 1,200 rows; if it is no label, ignore it"):
            load_attribute_csv(tmp_path, check_images=False)


@pytest.mark.parametrize("value", ["NA", "N/A", "None", "null", "?", "unknown", "-1"])
def test_a_class_that_probably_says_nothing_is_named(tmp_path, value):
    write(tmp_path, ["path,size", *plain_rows(40, lambda i: value if i % 4 == 0 else "sm"[i % 2])])
    with pytest.warns(
        UserWarning, match=rf"column 'size' has the class {re.escape(repr(value))}; if it says that nothing is known"
    ):
        load_attribute_csv(tmp_path, check_images=False)
    write(tmp_path, (tmp_path / "attributes.csv").read_text().splitlines(), f'missing: ["", "{value}"]')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_attribute_csv(tmp_path, check_images=False).schema.attributes[0].classes == ("m", "s")
    write(tmp_path, ["path,worn", *plain_rows(40, lambda i: 1 if i % 4 == 0 else -1)])
    (tmp_path / "schema.yaml").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_attribute_csv(tmp_path, check_images=False)


def test_spellings_of_one_class_are_said_with_their_counts_and_joined_where_asked(tmp_path):
    rows = ["path,who", *(f"{i}.png,{SPELLED[i % 9]}" for i in range(90))]
    write(tmp_path, rows)
    with pytest.warns(UserWarning, match=r"who: '1' \(10 images\), '1.0' \(20 images\); who: 'Men' \(10 images\), 'men' \(20 im"):
        assert load_attribute_csv(tmp_path, check_images=False).schema.num_classes == (7,)
    write(tmp_path, rows, "normalize: true")
    dataset = load_attribute_csv(tmp_path, check_images=False)
    # The most frequent spelling; of TRUE and true, equally frequent, the first in sorted order.
    assert dataset.schema.attributes[0].classes == ("1.0", "TRUE", "Women", "men")
    names = loaded(tmp_path)
    assert [names[f"{i}.png"]["who"] for i in range(9)] == ["men"] * 3 + ["Women"] + ["1.0"] * 3 + ["TRUE"] * 2


def test_normalized_values_take_the_spelling_of_the_schema(tmp_path):
    schema = "normalize: true\nlabels: {who: [MEN, Women], tags: {separator: '|'}}"
    write(
        tmp_path,
        ["path,who,tags", *(f"{i}.png,{'men' if i % 3 else 'women'},{'a|B' if i % 2 else 'b'}" for i in range(20))],
        schema,
    )
    names = loaded(tmp_path)
    # Of B and b, equally frequent, the first in sorted order.
    assert names["1.png"] == {"who": "MEN", "tags=a": "present", "tags=B": "present"}
    assert names["0.png"] == {"who": "Women", "tags=a": "absent", "tags=B": "present"}


def test_a_row_for_each_image_and_label(tmp_path):
    rows = ["path,tag,part"]
    for i in range(30):
        rows += [f"{i}.png,{tag},{('train', 'val', 'test')[i % 3]}" for tag in ("a", "b")[: i % 3]] or [f"{i}.png,,train"]
    write(tmp_path, rows, "long: {label: tag}\nsplit: part")
    names = loaded(tmp_path)
    assert names["0.png"] == {"tag=a": "absent", "tag=b": "absent"}
    assert names["1.png"] == {"tag=a": "present", "tag=b": "absent"}
    assert names["2.png"] == {"tag=a": "present", "tag=b": "present"}
    write(tmp_path, [*rows, "1.png,c,test"])
    with pytest.raises(ValueError, match=r"line \d+: image '1.png' has two values of 'part'"):
        loaded(tmp_path)


def test_a_row_for_each_image_label_and_class(tmp_path):
    rows = ["path,what,is"]
    for i in range(30):
        rows += [f"{i}.png,size,{'sml'[i % 3]}"] + ([f"{i}.png,colour,{'red' if i % 3 else 'blue'}"] if i % 2 else [])
    write(tmp_path, rows, "long: {label: what, value: is}")
    names = loaded(tmp_path)
    assert names["4.png"] == {"size": "m", "colour": None} and names["5.png"] == {"size": "l", "colour": "red"}
    write(tmp_path, [*rows, "4.png,size,s"])
    with pytest.raises(ValueError, match=r"image '4.png' has two classes of 'size'"):
        loaded(tmp_path)


def test_many_repeated_images_are_a_long_table(tmp_path):
    write(tmp_path, ["path,tag", *(f"{i // 3}.png,{'abc'[i % 3]}" for i in range(30))])
    with pytest.raises(ValueError, match=r"'0\.png' is listed twice.*for one row per image and label write long: in the YAML"):
        loaded(tmp_path)


@pytest.fixture
def coco():
    images = [{"id": 10 + i, "file_name": f"{i}.png"} for i in range(20)]
    annotations = [{"image_id": 10 + i, "category_id": 7} for i in range(0, 20, 2)]
    annotations += [{"image_id": 10 + i, "category_id": 3, "bbox": [0, 0, 1, 1]} for i in range(0, 20, 5)] * 2
    return {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]}


def test_cocos_json_says_which_categories_an_image_has(tmp_path, coco):
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(coco))
    names = loaded(path)
    assert names["0.png"] == {"category=cat": "present", "category=dog": "present"}
    assert names["5.png"] == {"category=cat": "absent", "category=dog": "present"}
    assert names["1.png"] == {"category=cat": "absent", "category=dog": "absent"} and len(names) == 20


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c.pop("categories"), "lists of images, annotations and categories; categories is none"),
        (
            lambda c: c["annotations"].append({"image_id": 99, "category_id": 7}),
            "annotation 19 has the image_id 99, which is none",
        ),
        (lambda c: c["images"].append({"id": 10, "file_name": "x.png"}), "images must have an id of their own and a file_name"),
        (lambda c: c["categories"].append({"id": 9, "name": "cat"}), "each name must stand once in categories, repeated: 'cat'"),
        (lambda c: c["categories"].append({"id": 9, "name": "cat "}), "each name must stand once in categories, repeated: 'cat'"),
        (lambda c: c["categories"].append({"id": 9, "name": "\ud800"}), "categories must have an id of their own and a name"),
        (lambda c: c["annotations"][0].update(image_id=[10]), r"annotation 1 has the image_id \[10\], which is none"),
        (lambda c: c["annotations"][0].update(category_id={}), r"annotation 1 has the category_id \{\}, which is none"),
        (lambda c: c["images"].clear(), "holds no image"),
    ],
)
def test_a_broken_coco_file_is_named(tmp_path, coco, change, message):
    change(coco)
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(coco))
    with pytest.raises(ValueError, match=message):
        load_attribute_csv(path, check_images=False)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"[" * 100_000, b'{"images": 1' + b"0" * 5000 + b"}"], ids=["bytes", "deep", "long"]
)
def test_a_coco_file_that_is_no_json_is_named(tmp_path, content):
    path = tmp_path / "annotations.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"annotations\.json is not valid JSON"):
        load_attribute_csv(path, check_images=False)


def test_blanks_around_a_category_are_dropped(tmp_path, coco):
    coco["categories"][0]["name"] = "cat "
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(coco))
    assert loaded(path)["0.png"] == {"category=cat": "present", "category=dog": "present"}


def test_a_file_whose_name_is_no_text_is_no_image_of_the_table(tmp_path):
    write(tmp_path, ["path,size", *(f"{i}.png,{'sml'[i % 3]}" for i in range(12))])
    for i in range(12):
        (tmp_path / f"{i}.png").touch()
    (tmp_path / os.fsdecode(b"\xff.png")).symlink_to(tmp_path / "0.png")
    assert sum(map(len, load_attribute_csv(tmp_path).splits.values())) == 12


def test_texts_of_a_parquet_file_that_are_no_utf8_are_named(tmp_path):
    column = pa.StringArray.from_buffers(2, pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"\xffa"))
    pyarrow.parquet.write_table(pa.table({"path": ["a.png", "b.png"], "size": column}), tmp_path / "attributes.parquet")
    with pytest.raises(ValueError, match=r"attributes.parquet is not a readable Parquet file: .*UTF8"):
        load_attribute_csv(tmp_path, check_images=False)


def test_a_schema_of_another_name_or_a_link_to_none_is_no_silence(tmp_path):
    write(tmp_path, ["path,size,other", *(f"{i}.png,{'sml'[i % 3]},{i % 2}" for i in range(12))])
    (tmp_path / "schema.yml").write_text("ignore: [other]\n")
    with pytest.raises(ValueError, match=r"schema\.yml must be called schema\.yaml, or be named by --schema="):
        load_attribute_csv(tmp_path, check_images=False)
    assert len(load_attribute_csv(tmp_path, check_images=False, schema=tmp_path / "schema.yml").schema.attributes) == 1
    (tmp_path / "schema.yml").unlink()
    (tmp_path / "schema.yaml").symlink_to(tmp_path / "gone.yaml")
    with pytest.raises(FileNotFoundError, match=r"schema\.yaml"):
        load_attribute_csv(tmp_path, check_images=False)


def test_a_root_that_came_with_the_table_leads_nowhere_else(tmp_path):
    images = tmp_path / "images"
    folder = tmp_path / "table"
    images.mkdir()
    folder.mkdir()
    for i in range(12):
        (images / f"{i}.png").touch()
    write(folder, ["path,size", *(f"{i}.png,{'sml'[i % 3]}" for i in range(12))], "root: ../images")
    with pytest.raises(ValueError, match=r"12 of 12 images lie outside of the table's folder.*--allow_outside_root"):
        load_attribute_csv(folder)
    for given in ({"allow_outside_root": True}, {"schema": folder / "schema.yaml"}):
        assert sum(map(len, load_attribute_csv(folder, **given).splits.values())) == 12


def test_spellings_that_look_the_same_are_said(tmp_path):
    values = ["\u00e9", "e\u0301", "x", "x\u200b"]
    write(tmp_path, ["path,size", *(f"{i}.png,{values[i % 4]}" for i in range(40))])
    with pytest.warns(UserWarning, match="learned apart"):
        load_attribute_csv(tmp_path, check_images=False)


def test_a_missing_image_of_coco_is_named_by_its_row(tmp_path, coco):
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(coco))
    with pytest.raises(FileNotFoundError, match=r"20 of 20 images are missing, the first: '0.png' \(row 1\)"):
        load_attribute_csv(path)


def test_ids_without_a_suffix_are_advised_and_read_with_one(tmp_path):
    for i in range(12):
        (tmp_path / f"{i}.jpg").touch()
    write(tmp_path, ["path,size", *(f"{i},{'sml'[i % 3]}" for i in range(12))])
    with pytest.raises(FileNotFoundError, match=r"0\.jpg is there: write suffix: \.jpg in the YAML") as advised:
        load_attribute_csv(tmp_path)
    assert "skip_unreadable" not in str(advised.value)
    write(tmp_path, (tmp_path / "attributes.csv").read_text().splitlines(), "suffix: .jpg")
    assert sum(map(len, load_attribute_csv(tmp_path).splits.values())) == 12


def test_an_index_of_a_parquet_file_is_no_label(tmp_path):
    columns = {"path": [f"{i}.png" for i in range(12)], "size": ["s", "m", "l"] * 4, "": list(range(12))}
    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "attributes.parquet")
    assert loaded(tmp_path)["4.png"] == {"size": "m"}
    assert np.unique([len(row) for row in loaded(tmp_path).values()]).tolist() == [1]


def test_kaggles_lists_of_celeba_are_read_from_every_place(tmp_path):
    images = tmp_path / "Img" / "img_align_celeba" / "img_align_celeba"
    images.mkdir(parents=True)
    for i in range(6):
        (images / f"{i}.jpg").touch()
    (tmp_path / "Anno").mkdir()
    (tmp_path / "Eval").mkdir()
    parts = "\n".join(["image_id,partition", *(f"{i}.jpg,{i // 2}" for i in reversed(range(6)))])
    (tmp_path / "Eval" / "list_eval_partition.csv").write_text(parts)
    expected = {f"{i}.jpg": [i % 2, int(i > 2)] for i in range(6)}
    for negative in (-1, 0):
        rows = [",".join([name, *(str(v or negative) for v in values)]) for name, values in expected.items()]
        (tmp_path / "Anno" / "list_attr_celeba.csv").write_text("\n".join(["image_id,Bald,Smiling", *rows]))
        dataset = load_dataset("celeba", data_dir=str(tmp_path))
        found = {
            p.rpartition("/")[2]: row.tolist() for s in dataset.splits.values() for p, row in zip(s.images, s.labels, strict=True)
        }
        assert found == expected and dataset.schema.names == ("Bald", "Smiling")
        assert {p.rpartition("/")[2] for p in dataset.splits["test"].images} == {"4.jpg", "5.jpg"}
    mixed = (tmp_path / "Anno" / "list_attr_celeba.csv").read_text().replace("5.jpg,1,1", "5.jpg,-1,1")
    (tmp_path / "Anno" / "list_attr_celeba.csv").write_text(mixed)
    with pytest.raises(ValueError, match=r"attributes must be 1 and -1, or 1 and 0, received \[-1, 0, 1\]"):
        load_dataset("celeba", data_dir=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="it seems to hold CelebA, which --dataset=celeba reads"):
        load_dataset("attribute_csv", data_dir=str(tmp_path))
