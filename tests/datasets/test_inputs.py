"""Which images are meant by files, folders, patterns and tables."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crl_tf.datasets.inputs import find_images


@pytest.fixture
def folder(tmp_path):
    for name in ("b.jpg", "a.PNG", "deep/er/c.webp", ".hidden.jpg", ".git/d.jpg", "notes.txt", "deep/e.jpeg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(folder, *inputs):
    return [os.path.relpath(path, folder) for path in find_images([folder / name for name in inputs]).paths]


def test_a_folder_means_all_images_below_it_sorted(folder):
    assert names(folder, "") == ["a.PNG", "b.jpg", "deep/e.jpeg", "deep/er/c.webp"]


def test_inputs_keep_their_order_and_each_image_comes_once(folder):
    assert names(folder, "deep", "b.jpg", "b.jpg", "") == ["deep/e.jpeg", "deep/er/c.webp", "b.jpg", "a.PNG"]


def test_another_spelling_of_a_path_means_the_same_image(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert find_images(["b.jpg", "./b.jpg", "deep/../b.jpg", folder / "b.jpg"]).paths == ["b.jpg"]


def test_a_pattern_means_what_it_matches(folder):
    assert names(folder, "*.jp*g") == ["b.jpg"]
    assert names(folder, "**/*.*e*g") == ["deep/e.jpeg"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(folder):
    (folder / "x[1].jpg").touch()
    assert names(folder, "x[1].jpg") == ["x[1].jpg"]


def test_a_file_need_not_end_as_an_image_does(folder):
    assert names(folder, "notes.txt") == ["notes.txt"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_names_images_beside_it_whether_they_are_there_or_not(folder, suffix):
    table = pa.table({"other": ["x", "y"], "path": ["b.jpg", "gone.jpg"]})
    if suffix == "csv":
        (folder / "t.csv").write_text("other,path\nx,b.jpg\ny,gone.jpg\n")
    else:
        pq.write_table(table, folder / "t.parquet")
    assert names(folder, f"t.{suffix}") == ["b.jpg", "gone.jpg"]


def test_links_to_folders_are_not_followed(folder):
    (folder / "deep" / "back").symlink_to(folder)
    assert names(folder, "deep") == ["deep/e.jpeg", "deep/er/c.webp"]


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("gone", FileNotFoundError, "file, a folder, a pattern or a table, received"),
        ("*.gif", FileNotFoundError, "matches none"),
        ("t.csv", ValueError, "missing column 'path'"),
        ("none", ValueError, "input must hold images"),
    ],
)
def test_what_is_no_input_is_named(folder, name, error, words):
    (folder / "t.csv").write_text("file\nb.jpg\n")
    (folder / "none").mkdir()
    with pytest.raises(error, match=words):
        find_images([str(folder / name)])


def test_every_row_of_a_table_comes_and_is_called_as_the_table_calls_it(folder):
    (folder / "t.csv").write_text("path,x\nb.jpg,1\n,2\n./b.jpg,3\nb.jpg,4\n")
    found = find_images([folder / "t.csv", folder / "b.jpg", folder / "a.PNG"])
    assert found.names == ["b.jpg", "", "./b.jpg", "b.jpg", str(folder / "a.PNG")]
    assert found.paths == [str(folder / "b.jpg"), "", f"{folder}/./b.jpg", str(folder / "b.jpg"), str(folder / "a.PNG")]


def test_files_of_folders_that_do_not_end_as_images_do_are_counted(folder):
    for name in ("x.tif", "deep/y.TIF", "z"):
        (folder / name).touch()
    assert find_images([folder]).passed_over == {".tif": 2, ".txt": 1, "no ending": 1}
    (folder / "others").mkdir()
    (folder / "others" / "x.avif").touch()
    with pytest.raises(ValueError, match=r"input must hold images .* and 1 file of other kinds"):
        find_images([folder / "others"])
