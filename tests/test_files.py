"""What has its final name is whole."""

import pytest

from crl_tf.files import read_json, write_json, write_whole


def test_a_write_that_fails_leaves_what_was_there_and_no_rubbish(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"a": 1})

    def full_disk(partial):
        partial.write_text("half of i")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_whole(path, full_disk)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": 1} and [p.name for p in tmp_path.iterdir()] == ["result.json"]


def test_a_folder_is_replaced_whole(tmp_path):
    for content in ("old", "new"):

        def write(partial, content=content):
            partial.mkdir()
            (partial / content).write_text(content)

        write_whole(tmp_path / "export", write)
    assert [p.name for p in (tmp_path / "export").iterdir()] == ["new"]


def test_a_file_does_not_take_the_place_of_a_folder(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "precious").write_text("mine")
    with pytest.raises(OSError):
        write_json(tmp_path / "runs", {})
    assert (tmp_path / "runs" / "precious").read_text() == "mine"


def test_broken_json_names_its_file(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON"):
        read_json(tmp_path / "config.json")
