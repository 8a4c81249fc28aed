"""What an inspection proposes, that it counts what a training sees, and that signs and lost classes are said."""

import shutil

import pytest

from crl_tf.experiment.config import load_recipe, override
from crl_tf.experiment.data import load_data
from crl_tf.experiment.inspect import inspect
from crl_tf.experiment.proposal import proposed_size


@pytest.fixture
def own(shop, tmp_path):
    """A copy of the shop, for a test to break, and the recipe for it."""
    folder = tmp_path / "shop"
    shutil.copytree(shop, folder)
    return folder, override(load_recipe("attribute_csv"), {"data.dir": str(folder), "data.image_size": (16, 16)})


def test_a_size_keeps_the_shape_and_is_no_larger_than_the_images():
    for height, width in ((80, 60), (500, 375), (28, 28), (1080, 1920), (16, 16)):
        size = proposed_size((height, width))
        assert all(side % 8 == 0 for side in size) and size[0] * size[1] <= 1.25 * 64 * 64
        assert size[0] / size[1] == pytest.approx(height / width, rel=0.2)


def test_an_inspection_proposes_size_epochs_and_rate(own, tmp_path):
    facts = inspect(own[1], tmp_path / "inspected")
    # 36 images are one step of 64 an epoch: 2,000 epochs for 2,000 steps.
    assert facts["proposal"].startswith(
        "to begin with: --config.data.image_size='(16, 16)' (the median image is 16 x 16); 2000 epochs of 1 steps at"
        " --batch_size=64; adamw at the rate 0.002; --config.data.augment='(\"flip\",)' only if a mirrored image keeps its"
        " labels; --config=finetune"
    )


def test_with_skip_unreadable_an_inspection_counts_what_a_training_sees(own, tmp_path):
    folder, recipe = own
    (folder / "0.png").write_bytes(b"no image")
    counted = {}
    for skip in (False, True):
        facts = inspect(override(recipe, {"data.skip_unreadable": skip}), tmp_path / str(skip))
        counted[skip] = facts["labels"]["colour"]["classes"]["red"]["train"]
        assert any("1 of 60 images cannot be read" in sentence for sentence in facts["findings"])
    assert counted[True] == counted[False] - 1


def test_a_class_that_loses_its_last_image_is_named(own, log, monkeypatch):
    folder, recipe = own
    lines = (folder / "attributes.csv").read_text().splitlines()
    # 48 is a test image, the only one of a size of its own that stands in training too.
    lines = [",".join([*line.split(",")[:3], "giant"]) if line.startswith(("48.", "1.")) else line for line in lines]
    (folder / "attributes.csv").write_text("\n".join(lines) + "\n")
    (folder / "48.png").write_bytes(b"no image")
    data = override(recipe, {"data.skip_unreadable": True}).data
    with pytest.raises(ValueError, match=r"more than the 0\.01 that may be left out"):
        load_data("attribute_csv", data, seed=0, batch_size=8)
    without = load_data.__globals__["without_unreadable"]
    monkeypatch.setitem(load_data.__globals__, "without_unreadable", lambda *a, **k: without(*a, limit=0.5, **k))
    load_data("attribute_csv", data, seed=0, batch_size=8)
    assert "the images that are left out were the last ones of: size=giant (test)" in log.messages


def test_binary_labels_of_signs_are_a_finding(own, tmp_path):
    folder, recipe = own
    lines = (folder / "attributes.csv").read_text().splitlines()
    rows = ["path,split,worn", *(",".join([*line.split(",")[:2], "1" if i % 3 else "-1"]) for i, line in enumerate(lines[1:]))]
    (folder / "attributes.csv").write_text("\n".join(rows) + "\n")
    (folder / "schema.yaml").write_text('missing: ["-1"]\nlabels: {worn: ["0", "1"]}')
    with pytest.warns(UserWarning, match="1 class has no image: worn=0"):
        facts = inspect(recipe, tmp_path / "inspected", check_images=False)
    assert any(
        "1 binary labels have images of one class and not annotated ones, none of the other: worn" in f for f in facts["findings"]
    )
