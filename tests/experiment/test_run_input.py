"""What a run is fed: bytes, from files or from a cache, to the same result; and serving sees what training saw."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from crl_tf.datasets import Split
from crl_tf.datasets.pipeline import make_pipeline
from crl_tf.datasets.records.prepare import prepare
from crl_tf.experiment import compare as comparing
from crl_tf.experiment import run as experiment
from crl_tf.experiment.assemble import assemble
from crl_tf.experiment.config import from_json, override
from crl_tf.experiment.inspect import inspect
from crl_tf.files import read_json
from crl_tf.models import build_network
from crl_tf.schema import Attribute, AttributeSchema
from crl_tf.serving.export import export_saved_model


@pytest.fixture
def shrinking_recipe(tiny_recipe):
    """The shop's images, 16 x 16, at 12 x 12: there is something to decode and to resize."""
    tiny_recipe.data.image_size = (12, 12)
    tiny_recipe.data.augment = ("flip",)
    return tiny_recipe


def test_a_cache_changes_no_result(shrinking_recipe, tmp_path, log):
    weights, folder = {}, tmp_path / "cache"
    for place, cache in enumerate(("none", "memory", str(folder), str(folder))):
        shrinking_recipe.data.cache = cache
        experiment.run(shrinking_recipe, tmp_path / str(place), export=False)
        weights[place] = keras.saving.load_model(tmp_path / str(place) / "model.keras").get_weights()
        assert read_json(tmp_path / str(place) / "config.json")["recipe"]["data"]["cache"] == cache
        said = [line for line in log.messages if line.startswith("cache: ")]
        log.clear()
        # 60 images of 12 * 12 * 3 bytes.
        assert said == ([] if place == 0 else [f"cache: train, validation, test at 12 x 12, 0.03 MB in {cache}"])
    for other in (1, 2, 3):
        for a, b in zip(weights[0], weights[other], strict=True):
            np.testing.assert_array_equal(a, b)
    assert len(list(folder.iterdir())) == 3


def test_a_comparison_decodes_once(shrinking_recipe, tmp_path, log):
    shrinking_recipe.data.cache = "memory"
    shrinking_recipe.train.epochs = 1
    comparing.compare(shrinking_recipe, ["ce", "class_rel"], tmp_path / "both", export=False)
    assert sum(line.startswith("cache: ") for line in log.messages) == 1


def test_images_in_memory_need_none_and_it_says_so(tmp_path, log):
    recipe = from_json({"data": {"cache": "memory"}})
    images = assemble(recipe).load().dataset.splits["train"].images
    assert isinstance(images, np.ndarray) and images.dtype == np.uint8
    assert "cache: nothing to keep, the images are in memory at 32 x 32 already" in log.messages


def test_resume_may_change_the_cache_and_evaluate_writes_none(shrinking_recipe, tmp_path):
    shrinking_recipe.train.epochs = 1
    experiment.run(shrinking_recipe, tmp_path / "run", export=False)
    shrinking_recipe.train.epochs, shrinking_recipe.data.cache = 2, str(tmp_path / "cache")
    assert experiment.run(shrinking_recipe, tmp_path / "run", resume=True, export=False)["epochs"] == 2
    for path in (tmp_path / "cache").iterdir():
        path.unlink()
    assert experiment.evaluate(tmp_path / "run")[0]["epochs"] == 2
    assert not list((tmp_path / "cache").iterdir())


def test_records_train_to_the_same_result_as_files(shrinking_recipe, tmp_path):
    shrinking_recipe.train.epochs = 1
    experiment.run(shrinking_recipe, tmp_path / "files", export=False)
    folder = prepare(assemble(shrinking_recipe).load().dataset, tmp_path / "prepared", shard_bytes=5000)
    shrinking_recipe.dataset, shrinking_recipe.data.dir = "records", str(folder)
    experiment.run(shrinking_recipe, tmp_path / "records", export=False)
    weights = [keras.saving.load_model(tmp_path / run / "model.keras").get_weights() for run in ("files", "records")]
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)
    shrinking_recipe.data.open_shards = 1
    data = assemble(shrinking_recipe).load()
    labels = np.concatenate([batch.numpy() for _, batch in data.batches("train", training=True)])
    train = data.dataset.splits["train"]
    assert len(labels) == len(train) and len(train.images.shards) > 1


def test_shards_are_refused_where_there_are_none(tiny_recipe):
    tiny_recipe.data.open_shards = 2
    with pytest.raises(ValueError, match=r"data\.open_shards must be none for attribute_csv, since only records have shards"):
        assemble(tiny_recipe).load()


def test_carved_validation_is_refused_where_it_is_not_celeba(tiny_recipe):
    tiny_recipe.data.celeba_validation = "carved"
    with pytest.raises(
        ValueError, match=r"data\.celeba_validation has no meaning for attribute_csv: leave it out, received 'carved'"
    ):
        assemble(tiny_recipe).load()


@pytest.fixture
def one_broken(tiny_recipe, shop, tmp_path):
    """The recipe for 101 images of which one, of training, is broken: 0.99 %, which is just not more than 1."""
    rows = (shop / "attributes.csv").read_text().splitlines()
    for i in range(41):
        (tmp_path / f"more{i}.png").write_bytes((shop / f"{i}.png").read_bytes())
    tiny_recipe.data.allow_outside_root = True
    paths = [f"{shop}/{row}" for row in rows[1:]] + [f"more{i}.png,train,red,small" for i in range(41)]
    (tmp_path / "attributes.csv").write_text("\n".join([rows[0], *paths]) + "\n")
    (tmp_path / "more7.png").write_bytes(b"hello")
    tiny_recipe.data.dir, tiny_recipe.train.epochs = str(tmp_path), 1
    return tiny_recipe


def test_a_run_that_a_broken_image_stopped_goes_on_without_it_as_it_advises(one_broken, tmp_path):
    with pytest.raises(Exception, match=r"more7\.png.*--skip_unreadable"):
        experiment.run(one_broken, tmp_path / "run", export=False)
    one_broken.data.skip_unreadable = True
    with pytest.raises(ValueError, match=r"train had 77 images and has 76\. Pass --allow_changed_rows"):
        experiment.run(one_broken, tmp_path / "run", export=False, resume=True)
    assert experiment.run(one_broken, tmp_path / "run", export=False, resume=True, changed_rows=True)["epochs"] == 1


def test_unreadable_images_are_left_out_and_named(one_broken, tmp_path, log):
    tiny_recipe = one_broken
    tiny_recipe.data.skip_unreadable = True
    result = experiment.run(tiny_recipe, tmp_path / "run", export=False)
    (line,) = [line for line in log.messages if line.startswith("left out 1 unreadable image: ")]
    assert "more7.png" in line
    assert read_json(tmp_path / "run/config.json")["images"]["train"] == 36 + 40
    assert result["epochs"] == 1
    (tmp_path / "more8.png").unlink()
    with pytest.raises(ValueError, match=r"2 of 101 .*more7\.png.*more8\.png \(missing\)"):
        assemble(tiny_recipe).load()


def test_a_broken_test_image_is_met_before_the_first_epoch(tiny_recipe, shop, tmp_path):
    rows = (shop / "attributes.csv").read_text().replace("59.png", "broken.png").splitlines()
    for i in range(59):
        (tmp_path / f"{i}.png").write_bytes((shop / f"{i}.png").read_bytes())
    (tmp_path / "broken.png").write_bytes(b"hello")
    (tmp_path / "attributes.csv").write_text("\n".join(rows) + "\n")
    tiny_recipe.data.dir = str(tmp_path)
    with pytest.raises(ValueError, match=r"1 in validation and test: .*broken\.png \(not an image.*--skip_unreadable"):
        experiment.run(tiny_recipe, tmp_path / "run", export=False)
    assert not (tmp_path / "run").exists()


def test_an_inspection_is_written_over_its_own_and_nothing_else(tiny_recipe, tmp_path):
    first = inspect(tiny_recipe, tmp_path / "seen", check_images=False)
    assert inspect(tiny_recipe, tmp_path / "seen", check_images=False) == first
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("...")
    with pytest.raises(ValueError, match=r"mine is not empty and holds no inspection: pass another --workdir"):
        inspect(tiny_recipe, tmp_path / "mine")


def test_a_config_from_before_there_was_a_cache_loads():
    settings = from_json({}).to_dict()
    del settings["data"]["cache"]
    assert from_json(settings).data.cache == "none"


@pytest.mark.parametrize("name, size", [("cifarnet", (12, 10)), ("deepid2", (34, 33))])
def test_networks_take_bytes_and_floats_alike(name, size):
    network = build_network(name, image_size=size, num_classes=[2, 3])
    images = np.random.default_rng(0).integers(0, 256, (4, *size, 3), dtype=np.uint8)
    images[0] = 255  # in eight bits, anything added to it would be lost
    for call in (network, tf.function(network)):
        from_bytes, from_floats = call(tf.constant(images)), call(tf.constant(images, tf.float32))
        for key, value in from_bytes.items():
            np.testing.assert_array_equal(value, from_floats[key])
        assert value.dtype == tf.float32


def test_serving_sees_what_training_saw(tmp_path):
    """Whole-size images, served, give the probabilities of the pipeline's bytes; images of the right size are left alone."""
    schema = AttributeSchema((Attribute("colour", ("red", "green", "blue")),))
    network = build_network("cifarnet", image_size=(12, 10), num_classes=[3])
    model = keras.Model(network.input, network.output["logits"])
    export_saved_model(model, schema, (12, 10), tmp_path / "export")
    serve = tf.saved_model.load(tmp_path / "export").signatures["serving_default"]
    images = np.random.default_rng(0).integers(0, 256, (5, 31, 17, 3), dtype=np.uint8)
    split = Split(images, np.zeros((5, 1), np.int32))
    ((seen, _),) = make_pipeline(split, image_size=(12, 10), batch_size=5, training=False)
    served = serve(images=tf.constant(images, tf.float32))["colour_scores"]
    np.testing.assert_array_equal(served, serve(images=tf.cast(seen, tf.float32))["colour_scores"])
    np.testing.assert_allclose(served, tf.nn.softmax(model(seen)), atol=1e-6)
    # Not rounded where nothing was resized: these are the caller's own values.
    half = tf.cast(seen, tf.float32) + 0.4
    np.testing.assert_allclose(serve(images=half)["colour_scores"], tf.nn.softmax(model(half)), atol=1e-6)


def test_a_share_of_the_training_images_is_stratified_and_drawn_by_the_seed(tiny_recipe, log):
    whole = assemble(tiny_recipe).load()
    tiny_recipe.data.train_share = 0.5
    half, again = (assemble(tiny_recipe).load() for _ in range(2))
    assert "train_share: 18 of 36 training images" in log.messages
    taken = half.dataset.splits["train"].images.tolist()
    assert taken == again.dataset.splits["train"].images.tolist() and len(set(taken)) == 18
    assert set(taken) <= set(whole.dataset.splits["train"].images.tolist())
    # 24 red, 6 green, 6 blue of the 36: half of each, and of the sizes.
    assert [int(count) for count in half.counts[0]] == [count // 2 for count in whole.counts[0].tolist()]
    for mine, of_all in zip(half.counts[1], whole.counts[1], strict=True):
        assert abs(mine - of_all / 2) <= 1
    for split in ("validation", "test"):
        np.testing.assert_array_equal(half.dataset.splits[split].images, whole.dataset.splits[split].images)
    tiny_recipe.seed = 1
    assert assemble(tiny_recipe).load().dataset.splits["train"].images.tolist() != taken


def test_a_share_that_is_none_is_refused(tiny_recipe):
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match=r"data.train_share must be a number in \(0, 1\]"):
            override(tiny_recipe, {"data.train_share": share})
