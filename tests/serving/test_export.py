"""What a SavedModel answers: every signature, any number of images, damaged ones, several threads, and without this package."""

import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from image_zoo import encoded, exif, picture, with_segment
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from crl_tf.schema import Attribute, AttributeSchema
from crl_tf.serving.export import export_saved_model
from crl_tf.serving.scoring import Scoring
from crl_tf.serving.served import is_export, load_served

SIZE = (8, 6)
SCHEMA = AttributeSchema(
    (
        Attribute("a", ("x", "y")),
        Attribute("a_index", ("p", "q", "r")),
        Attribute("5 o'clock/shadow: 100 %", ("ja", "nö", "?")),
        Attribute("valid", ("no", "yes")),
    )
)
SCORING = Scoring(
    temperatures=np.array([0.5, 2.0, 1.0, 1.5]),
    decision_offsets=np.linspace(-1, 1, SCHEMA.width),
    thresholds=np.full(SCHEMA.width, 0.4),
)
CARD = {"program": "crl_tf", "test": {"labels": {"a": {"train_counts": {"x": 7, "y": 2}}}}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A convolution, whose kernels refuse a batch of none, a ReLU, which makes a number of NaN, and two exports of it."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((*SIZE, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    scaled = keras.layers.Rescaling(0.02)(pooled)
    model = keras.Model(inputs, keras.layers.Dense(SCHEMA.width)(scaled))
    features = keras.Model(inputs, pooled)
    folder = tmp_path_factory.mktemp("served")
    export_saved_model(
        model, SCHEMA, SIZE, folder / "plain", features_and_logits=lambda images: (features(images), model(images))
    )

    def by_label(images):
        return tf.reshape(features(images), [-1, 2, 2]), model(images)

    export_saved_model(model, SCHEMA, SIZE, folder / "deciding", scoring=SCORING, features_and_logits=by_label, card=CARD)
    plain, deciding = load_served(folder / "plain"), load_served(folder / "deciding")
    return SimpleNamespace(model=model, features=features, folder=folder, plain=plain, deciding=deciding)


def some(count, side=8, seed=0):
    size = SIZE if side == 8 else (side, side)
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), np.uint8)


def check_same(found, expected):
    # A loaded SavedModel keeps no order of its outputs.
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value.dtype == np.float32:
            np.testing.assert_allclose(found[name], value, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_signatures_are_what_they_are_said_to_be(trained):
    for served, extra in ((trained.plain, ()), (trained.deciding, ("_detected",))):
        assert set(served.signatures) == {
            *("serving_default", "uint8_images", "image_bytes", "features", "features_of_bytes", "class_names"),
        }
        kinds = {"_scores": tf.float32, "_index": tf.int32, "_name": tf.string, "_detected": tf.bool}
        outputs = {name + kind: kinds[kind] for name in SCHEMA.names for kind in ("_scores", "_index", "_name", *extra)}
        for signature, dtype in (("serving_default", tf.float32), ("uint8_images", tf.uint8), ("image_bytes", tf.string)):
            function = served.signatures[signature]
            ((name, spec),) = function.structured_input_signature[1].items()
            assert (name, spec.dtype) == ("image_bytes" if dtype == tf.string else "images", dtype)
            valid = {"valid": tf.bool} if signature == "image_bytes" else {}
            assert {key: value.dtype for key, value in function.structured_outputs.items()} == outputs | valid
        names = {name: [text.decode() for text in value] for name, value in served.answer("class_names").items()}
        assert names == {attribute.name: list(attribute.classes) for attribute in SCHEMA.attributes}


@pytest.mark.parametrize("side", [8, 11])
@pytest.mark.parametrize("count", [0, 1, 3, 1024])
def test_a_batch_may_have_any_number_of_images(trained, side, count):
    images = some(count, side)
    from_floats = trained.plain.answer("serving_default", images=tf.constant(images, tf.float32))
    for attribute in SCHEMA.attributes:
        assert from_floats[attribute.name + "_scores"].shape == (count, attribute.num_classes)
        np.testing.assert_allclose(from_floats[attribute.name + "_scores"].sum(axis=1), np.ones(count), atol=1e-6)
    check_same(trained.plain.answer("uint8_images", images=tf.constant(images)), from_floats)
    # PNG keeps every pixel.
    contents = [tf.io.encode_png(image).numpy() for image in images]
    from_bytes = trained.plain.answer("image_bytes", image_bytes=tf.constant(contents, tf.string))
    assert from_bytes.pop("valid").tolist() == [True] * count
    check_same(from_bytes, from_floats)


def test_scores_are_those_of_the_model(trained):
    images = some(5).astype(np.float32)
    logits = trained.model(images).numpy()
    plain = trained.plain.answer("serving_default", images=images)
    deciding = trained.deciding.answer("serving_default", images=images)
    assert trained.deciding.scoring.to_config() == Scoring.from_config(SCORING.to_config()).to_config()
    for place, name in enumerate(SCHEMA.names):
        columns = SCHEMA.columns(name)
        np.testing.assert_allclose(plain[name + "_scores"], tf.nn.softmax(logits[:, columns]), atol=1e-6)
        np.testing.assert_array_equal(plain[name + "_index"], logits[:, columns].argmax(axis=1))
        scores = tf.nn.softmax(logits[:, columns] / SCORING.temperatures[place]).numpy()
        np.testing.assert_allclose(deciding[name + "_scores"], scores, atol=1e-6)
        decided = (np.log(scores) + SCORING.decision_offsets[columns]).argmax(axis=1)
        np.testing.assert_array_equal(deciding[name + "_index"], decided)
        np.testing.assert_array_equal(deciding[name + "_detected"], scores >= 0.4)
        assert [text.decode() for text in deciding[name + "_name"]] == [SCHEMA.attributes[place].classes[k] for k in decided]


@pytest.mark.parametrize("side", [8, 11])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_image_of_no_number_has_nan_and_the_others_have_theirs(trained, side, value):
    images = some(3, side).astype(np.float32)
    whole = trained.plain.answer("serving_default", images=images)
    images[1, 2, 2, 0] = value
    broken = trained.plain.answer("serving_default", images=images)
    check_same({name: of[[0, 2]] for name, of in broken.items()}, {name: of[[0, 2]] for name, of in whole.items()})
    for name in SCHEMA.names:
        assert np.isnan(broken[name + "_scores"][1]).all()
        assert (broken[name + "_index"][1], broken[name + "_name"][1]) == (-1, b"")
    features = trained.plain.answer("features", images=images)["features"]
    assert np.isnan(features[1]).all() and np.isfinite(features[[0, 2]]).all()


def contents_with_broken_ones():
    jpeg, png = encoded(picture(40, 30), "JPEG"), encoded(picture(*SIZE), "PNG")
    return [jpeg, b"no image", png, with_segment(jpeg, 0xE1, exif(6)), png[:-20], b"", encoded(picture(9, 9), "WEBP")]


def test_a_broken_image_has_a_flag_and_the_others_have_their_answers(trained):
    contents = contents_with_broken_ones()
    found = trained.deciding.answer("image_bytes", image_bytes=tf.constant(contents))
    valid = np.array([True, False, True, True, False, False, True])
    assert found["valid"].tolist() == valid.tolist()
    kept = [content for content, is_valid in zip(contents, valid, strict=True) if is_valid]
    alone = trained.deciding.answer("image_bytes", image_bytes=tf.constant(kept))
    check_same({name: value[valid] for name, value in found.items()}, alone)
    for name in SCHEMA.names:
        assert np.isnan(found[name + "_scores"][~valid]).all() and (found[name + "_index"][~valid] == -1).all()
    features = trained.deciding.answer("features_of_bytes", image_bytes=tf.constant(contents))["features"]
    assert features.shape == (7, 2, 2) and np.isnan(features[~valid]).all() and np.isfinite(features[valid]).all()
    nothing = trained.deciding.answer("image_bytes", image_bytes=tf.constant([b"", b"x"]))
    assert not nothing["valid"].any() and (nothing["a_index"] == -1).all()


@pytest.mark.parametrize("count", [0, 1, 5])
def test_features_are_those_of_the_function(trained, count):
    images = some(count).astype(np.float32)
    expected = trained.features(images).numpy() if count else np.zeros((0, 4))
    plain = trained.plain.answer("features", images=images)["features"]
    np.testing.assert_allclose(plain, expected, rtol=1e-5)
    of_labels = trained.deciding.answer("features", images=images)["features"]
    np.testing.assert_allclose(of_labels, expected.reshape(-1, 2, 2), rtol=1e-5)
    contents = tf.constant([tf.io.encode_png(image.astype(np.uint8)).numpy() for image in images], tf.string)
    np.testing.assert_array_equal(trained.plain.answer("features_of_bytes", image_bytes=contents)["features"], plain)


def test_eight_threads_at_once_get_their_own_answers(trained):
    # Of other counts and sizes, so that an answer to another thread's images is seen.
    requests = []
    for k in range(8):
        images = some(1 + k % 3, 8 + k % 2 * 3, seed=k)
        requests.append(("serving_default", {"images": tf.constant(images, tf.float32)}))
        contents = [tf.io.encode_png(image).numpy() for image in images] + [b"broken"] * (k % 2)
        requests.append(("image_bytes", {"image_bytes": tf.constant(contents)}))
    alone = [trained.deciding.answer(signature, **inputs) for signature, inputs in requests]
    with ThreadPoolExecutor(8) as threads:
        for _ in range(3):
            together = threads.map(lambda request: trained.deciding.answer(request[0], **request[1]), requests)
            for found, expected in zip(together, alone, strict=True):
                check_same(found, expected)


def test_warmup_requests_run_when_they_are_sent(trained):
    path = trained.folder / "plain" / "assets.extra" / "tf_serving_warmup_requests"
    logs = [PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
    requests = [log.predict_log.request for log in logs]
    takers = [name for name, function in trained.plain.signatures.items() if function.structured_input_signature[1]]
    assert sorted(request.model_spec.signature_name for request in requests) == sorted(takers)
    for request in requests:
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        found = trained.plain.answer(request.model_spec.signature_name, **inputs)
        assert all(len(value) == 1 for value in found.values()) and found.get("valid", np.ones(1)).all()


def test_an_export_says_what_it_is(trained):
    served = trained.deciding
    assert (served.schema, served.image_size) == (SCHEMA, SIZE) and is_export(served.folder)
    assert {name: served.card[name] for name in CARD} == CARD
    assert trained.plain.scoring == Scoring()


def test_without_features_there_are_no_such_signatures_and_an_old_export_is_replaced(tmp_path):
    model = keras.Sequential([keras.Input((2, 2, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    schema = AttributeSchema((Attribute("ü", ("x", "y")),))
    (tmp_path / "export" / "left").mkdir(parents=True)
    export_saved_model(model, schema, (2, 2), tmp_path / "export")
    served = load_served(tmp_path / "export")
    assert set(served.signatures) == {"serving_default", "uint8_images", "image_bytes", "class_names"}
    assert served.answer("serving_default", images=np.zeros((1, 2, 2, 3), np.float32))["ü_scores"].shape == (1, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export"] and not (tmp_path / "export" / "left").exists()


def test_what_is_no_export_is_named(trained, tmp_path):
    with pytest.raises(ValueError, match=r"workdir must be the folder of a run or an export of it; .* holds no saved_model\.pb"):
        load_served(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"has no assets\.extra/model\.json, as exports of older versions: export the run again"):
        load_served(tmp_path)
    (tmp_path / "assets.extra").mkdir()
    card = tmp_path / "assets.extra" / "model.json"
    for text, words in (("{", "is not valid JSON"), ("{}", "is damaged"), ('{"schema": 3}', "is damaged"), ("[]", "is damaged")):
        card.write_text(text)
        with pytest.raises(ValueError, match=rf"model\.json {words}"):
            load_served(tmp_path)
    card.write_text(json.dumps(trained.plain.card))
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_served(tmp_path)


def test_a_server_without_this_package_gives_the_same_answers(trained, tmp_path):
    requests = [
        ("serving_default", "images", some(3).astype(np.float32)),
        ("uint8_images", "images", some(2, 11)),
        ("image_bytes", "image_bytes", contents_with_broken_ones()),
        ("features", "images", some(3).astype(np.float32)),
        ("features_of_bytes", "image_bytes", contents_with_broken_ones()),
    ]
    (tmp_path / "requests").write_bytes(pickle.dumps(requests))
    script = f"""
import pickle, sys
sys.modules["crl_tf"] = sys.modules["keras"] = None  # importing them now fails
import tensorflow as tf
signatures = tf.saved_model.load({str(trained.folder / "deciding")!r}).signatures
with open("requests", "rb") as file:
    requests = pickle.load(file)
answers = [signatures[signature](**{{name: tf.constant(value)}}) for signature, name, value in requests]
with open("answers", "wb") as file:
    pickle.dump([{{name: value.numpy() for name, value in answer.items()}} for answer in answers], file)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr[-3000:]
    answers = pickle.loads((tmp_path / "answers").read_bytes())
    for (signature, name, value), found in zip(requests, answers, strict=True):
        expected = trained.deciding.answer(signature, **{name: tf.constant(value)})
        assert set(found) == set(expected)
        check_same({key: found[key] for key in expected}, expected)
