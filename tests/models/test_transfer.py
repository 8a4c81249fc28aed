"""Weights for a backbone from ImageNet, a file or another run, whole or not at all; and layers that stay as they are."""

import contextlib
import hashlib
import shutil
import urllib.error
import zipfile

import h5py
import keras
import numpy as np
import pytest

from crl_tf import CRL
from crl_tf.crl_model import CRLModel
from crl_tf.models import build_network
from crl_tf.models.transfer import freeze_layers, load_backbone, weighted_layers

SIZES = [2, 3]
MOBILENET = "keras:MobileNet"


def cifarnet(seed=0, **settings):
    keras.utils.set_random_seed(seed)
    return build_network("cifarnet", **{"image_size": (16, 16), "num_classes": SIZES, "width": 0.25} | settings)


def weights_of(network):
    return network.get_layer("backbone").get_weights()


def randomise(model, seed=0):
    """Every weight, moving statistics and normalisation included, to something that no layer begins with."""
    rng = np.random.default_rng(seed)
    for layer in weighted_layers(model):
        layer.set_weights([rng.permuted(w) if w.ndim > 1 else rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def save_as_published(model, path):
    """Legacy HDF5 with the layers at the root, as the files of keras.applications are."""
    whole = path.with_suffix(".whole.h5")
    model.save(whole)
    with h5py.File(whole) as source, h5py.File(path, "w") as target:
        for name in source["model_weights"]:
            source.copy(source["model_weights"][name], target, name)
        target.attrs.update(source["model_weights"].attrs)


@contextlib.contextmanager
def refused(path, *parts):
    with pytest.raises(ValueError) as caught:
        yield
    message = str(caught.value)
    assert message.startswith(f"pretrained={path} ") and "\n" not in message
    for part in parts:
        assert part in message


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """model.keras of a finished run, and its network."""
    path = tmp_path_factory.mktemp("run") / "model.keras"
    network = cifarnet(seed=1)
    CRLModel(network).save(path)
    return path, network


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory):
    """MobileNet's published form with weights of our own, and a backbone to load it into."""
    folder = tmp_path_factory.mktemp("mobilenet")
    model = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg")
    randomise(model)
    path = folder / "mobilenet_1_0_224_tf_no_top.h5"
    save_as_published(model, path)
    return path, model, build_network(MOBILENET, image_size=(32, 32), num_classes=[2]).get_layer("backbone")


@pytest.fixture
def keras_cache(tmp_path, monkeypatch):
    """An empty cache of Keras: nothing is found but what a test lays into models/."""
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path / "keras"))
    (tmp_path / "keras" / "models").mkdir(parents=True)
    return tmp_path / "keras" / "models"


def test_a_run_gives_its_backbone_to_other_labels_and_never_its_head(run):
    path, source = run
    for classes in ([4], SIZES):
        loaded, fresh = cifarnet(num_classes=classes, pretrained=str(path)), cifarnet(num_classes=classes)
        for got, wanted, before in zip(weights_of(loaded), weights_of(source), weights_of(fresh), strict=True):
            np.testing.assert_array_equal(got, wanted)
            assert not np.ptp(wanted) or not np.array_equal(wanted, before)
        kernel, of_run = loaded.get_layer("logits").kernel, source.get_layer("logits").kernel
        assert kernel.shape != of_run.shape or not np.array_equal(kernel, of_run)


def test_keras_own_forms_of_a_backbone(run, tmp_path):
    backbone = run[1].get_layer("backbone")
    backbone.save(tmp_path / "backbone.keras")
    backbone.save_weights(tmp_path / "backbone.weights.h5")
    save_as_published(backbone, tmp_path / "backbone.h5")
    for path in tmp_path.glob("backbone.*"):
        for got, wanted in zip(weights_of(cifarnet(pretrained=str(path))), backbone.get_weights(), strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_what_does_not_fit_is_refused_by_name_and_shape(run, tmp_path):
    path = run[0]
    with refused(path, "cifarnet", "Conv2D (5, 5, 3, 16), (16,)", "Conv2D (5, 5, 3, 32), (32,)"):
        cifarnet(width=0.5, pretrained=str(path))
    with refused(path, "resnet32", "layers with weights", "are wanted"):
        build_network("resnet32", image_size=(16, 16), num_classes=[2], width=0.1, pretrained=str(path))
    weights = tmp_path / "half.weights.h5"
    cifarnet(width=0.5).get_layer("backbone").save_weights(weights)
    with refused(weights, "cifarnet"):
        cifarnet(pretrained=str(weights))


def test_a_refused_file_leaves_the_backbone_as_it_was(run, tmp_path):
    # The first layers fit, the last has another shape, or a weight that is no number.
    backbone = run[1].get_layer("backbone")
    path = tmp_path / "b.weights.h5"
    for spoil in ("shape", "nan"):
        backbone.save_weights(path)
        with h5py.File(path, "r+") as file:
            names = []
            file.visititems(lambda name, item, names=names: names.append(name) if isinstance(item, h5py.Dataset) else None)
            last = names[-1]
            value = file[last][...]
            del file[last]
            file[last] = value[..., :-1] if spoil == "shape" else np.full_like(value, np.nan)
        network = cifarnet()
        before = weights_of(network)
        with refused(path):
            load_backbone(network.get_layer("backbone"), str(path), "cifarnet")
        for now, then in zip(weights_of(network), before, strict=True):
            np.testing.assert_array_equal(now, then)


def test_files_that_are_no_weights(run, tmp_path):
    missing = tmp_path / "none.h5"
    with pytest.raises(ValueError, match=r"^pretrained must be imagenet or a file, received '.*none\.h5'"):
        cifarnet(pretrained=str(missing))
    text = tmp_path / "weights.h5"
    text.write_text("not these")
    with refused(text, "is no file of weights"):
        cifarnet(pretrained=str(text))
    half = tmp_path / "half.keras"
    half.write_bytes(run[0].read_bytes()[: run[0].stat().st_size // 2])
    with refused(half, "is no file of weights"):
        cifarnet(pretrained=str(half))
    cut = tmp_path / "cut.weights.h5"
    run[1].get_layer("backbone").save_weights(cut)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    with refused(cut, "cifarnet"):
        cifarnet(pretrained=str(cut))
    archive = tmp_path / "some.keras"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("metadata.json", "{}")
    with refused(archive, "cifarnet"):
        cifarnet(pretrained=str(archive))


def test_a_lambda_of_a_stranger_does_not_run(tmp_path):
    inputs = keras.Input((4,))
    path = tmp_path / "stranger.keras"
    keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs)).save(path)
    with refused(path, "Lambda"):
        cifarnet(pretrained=str(path))


def test_imagenet_by_the_download_of_keras(mobilenet, keras_cache):
    path, model, backbone = mobilenet
    shutil.copy(path, keras_cache)
    randomise(backbone, seed=1)
    load_backbone(backbone, "imagenet", MOBILENET)
    for got, wanted in zip(backbone.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_a_download_that_fails_says_what_to_do_by_hand(mobilenet, keras_cache, monkeypatch):
    def unreachable(*_):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", unreachable)
    with pytest.raises(ValueError) as caught:
        load_backbone(mobilenet[2], "imagenet", MOBILENET)
    message = str(caught.value)
    assert message.startswith("pretrained=imagenet: the weights of keras:MobileNet could not be fetched") and "\n" not in message
    assert "no route" in message and "fetch https://storage.googleapis.com/" in message
    assert message.endswith("/mobilenet_1_0_224_tf_no_top.h5 elsewhere and pass --pretrained=FILE")


def test_imagenet_is_for_networks_of_keras():
    with pytest.raises(ValueError, match="pretrained=imagenet is for keras:NAME only, received it for cifarnet"):
        cifarnet(pretrained="imagenet")


def test_a_file_with_the_classifier_is_refused(mobilenet, tmp_path):
    with_top = keras.applications.MobileNet(weights=None, input_shape=(32, 32, 3))
    save_as_published(with_top, tmp_path / "top.h5")
    with_top.save_weights(tmp_path / "top.weights.h5")
    with_top.save(tmp_path / "top.keras")
    for name in ("top.h5", "top.weights.h5", "top.keras"):
        path = tmp_path / name
        with refused(path, MOBILENET, "without the classifier (notop)"):
            load_backbone(mobilenet[2], str(path), MOBILENET)


def test_efficientnet_is_the_published_function_by_name_and_by_path(keras_cache, monkeypatch):
    # Keras scales behind its Normalization with weights="imagenet" only; here one backbone serves both ways.
    name, shape = "efficientnetb0_notop.h5", (32, 32, 3)
    rng = np.random.default_rng(0)
    images = rng.uniform(0, rng.uniform(50, 255, (8, 1, 1, 3)), (8, *shape)).astype(np.float32)
    donor = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=shape, pooling="avg")
    randomise(donor)
    for layer in donor.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0  # the statistics of these images, without which random layers forget them
    donor(images, training=True)
    save_as_published(donor, keras_cache / name)
    md5 = hashlib.md5((keras_cache / name).read_bytes()).hexdigest()
    monkeypatch.setitem(keras.src.applications.efficientnet.WEIGHTS_HASHES, "b0", ("", md5))
    own = keras.applications.EfficientNetB0(include_top=False, weights="imagenet", input_shape=shape, pooling="avg")
    wanted = own(images).numpy()
    scale = abs(wanted).max()
    assert abs(wanted - donor(images).numpy()).max() > 0.1 * scale
    network = build_network("keras:EfficientNetB0", image_size=shape[:2], num_classes=[2])
    for pretrained in ("imagenet", str(keras_cache / name)):
        randomise(network.get_layer("backbone"), seed=1)
        load_backbone(network.get_layer("backbone"), pretrained, "keras:EfficientNetB0")
        np.testing.assert_allclose(network(images)["features"], wanted, atol=1e-4 * scale)


def small_backbone():
    """Four layers with weights, two of them in a model inside."""
    keras.utils.set_random_seed(0)
    inside = keras.Sequential(
        [keras.Input((4, 4, 5)), keras.layers.Conv2D(3, 1, name="c"), keras.layers.BatchNormalization(name="d")]
    )
    images = keras.Input((4, 4, 3))
    x = keras.layers.BatchNormalization(name="b")(keras.layers.Conv2D(5, 1, name="a")(images))
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(inside(keras.layers.ReLU()(x))), name="backbone")


@pytest.mark.parametrize(("count", "frozen"), [(0, ""), (1, "a"), (3, "abc"), (4, "abcd"), ("all", "abcd")])
def test_the_first_layers_with_weights_are_frozen(count, frozen):
    backbone = small_backbone()
    freeze_layers(backbone, count)
    assert "".join(layer.name for layer in weighted_layers(backbone) if not layer.trainable) == frozen
    assert {weight.path.split("/")[-2] for weight in backbone.trainable_weights} == set("abcd") - set(frozen)


@pytest.mark.parametrize("count", [-1, 5, 1.5, "none"])
def test_layers_that_are_not_there_cannot_be_frozen(count):
    with pytest.raises(ValueError, match=rf"freeze must be 'all' or in \[0, 4\], .* received {count!r}$"):
        freeze_layers(small_backbone(), count)


def test_frozen_layers_stay_in_a_step_and_through_a_file(tmp_path):
    backbone = small_backbone()
    freeze_layers(backbone, 2)
    images = keras.Input((4, 4, 3))
    features = backbone(images)
    model = CRLModel(keras.Model(images, {"features": features, "logits": keras.layers.Dense(5)(features)}))
    model.save(tmp_path / "model.keras")
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 2, (16, 4, 4, 3)).astype(np.float32), rng.integers(0, 2, (16, 2))
    trained = keras.saving.load_model(tmp_path / "model.keras")
    with_weights = weighted_layers(trained.network.get_layer("backbone"))
    assert [layer.trainable for layer in with_weights] == [False, False, True, True]
    before = [layer.get_weights() for layer in with_weights]
    trained.compile(keras.optimizers.SGD(0.1), loss=CRL(SIZES, alpha=0.5))
    trained.train_on_batch(x, y)
    after = [layer.get_weights() for layer in with_weights]
    moved = [[(a != b).any() for a, b in zip(*pair, strict=True)] for pair in zip(before, after, strict=True)]
    # Of the last two the kernel, and the moving mean and variance; the first two stand still.
    assert not any(moved[0] + moved[1]) and moved[2][0] and all(moved[3][2:])


def test_what_was_loaded_can_be_frozen_whole(run):
    network = cifarnet(pretrained=str(run[0]), freeze="all")
    assert not network.get_layer("backbone").trainable_weights and len(network.trainable_weights) == 2


def test_weights_of_a_turned_image_are_refused(tmp_path):
    """As many numbers are flattened, in another order."""
    cifarnet(image_size=(16, 12)).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"built for another image size: .* is flattened"):
        cifarnet(image_size=(12, 16), pretrained=str(tmp_path / "model.keras"))


def test_weights_of_resnet50_mean_the_same_in_both_of_its_forms(tmp_path):
    keras_form = build_network("keras:ResNet50", image_size=(32, 32), num_classes=[2])
    keras_form.get_layer("backbone").save_weights(tmp_path / "r.weights.h5")
    own_form = build_network("resnet50", image_size=(32, 32), num_classes=[2], pretrained=str(tmp_path / "r.weights.h5"))
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    features, expected = (network(images)["features"].numpy() for network in (own_form, keras_form))
    np.testing.assert_allclose(features, expected, atol=1e-4 * np.abs(expected).max())


def test_a_keras_file_that_unpacks_to_too_much_is_refused_unread(tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model.weights.h5", b"\0" * (300 << 20))
    assert path.stat().st_size < 1 << 20
    # 2^28 = 268 million bytes and 64 for each of the few weights of a small network.
    with refused(path, "it unpacks to 314,572,800 bytes, and at most 2"):
        build_network("cifarnet", image_size=(16, 16), num_classes=[2], width=0.1, pretrained=str(path))
