"""tools/paper/observations.py and outputs.py: against plain loops over numbers, scores and features."""

import csv
import json
import math

import numpy as np
import pytest
from paper import observations, outputs
from paper.outputs import Outputs

from crl_tf.datasets.source import Dataset, Split
from crl_tf.experiment.assemble import assemble
from crl_tf.experiment.config import base_config
from crl_tf.experiment.data import Data
from crl_tf.experiment.run import Context, measure, prepare
from crl_tf.schema import Attribute, AttributeSchema

COUNTS = {"hat": {"no": 90, "yes": 10}, "colour": {"red": 50, "green": 0, "blue": 25}}


def write_run(folder, method="ce", seed=0, shares=(0.5, 0.6), eta=0.1, kappa=25, history=()):
    """A finished run without a model."""
    recipe = base_config()
    recipe.crl.eta, recipe.crl.kappa = eta, kappa
    labels = {
        name: {"train_counts": counts, "balanced_accuracy": share}
        for (name, counts), share in zip(COUNTS.items(), shares, strict=True)
    }
    known = [share for share in shares if share is not None]
    result = {"dataset": "shop", "model": "small", "method": method, "seed": seed, "epochs": 3, "seconds": 1.0, "accuracy": 0.9}
    result |= {"balanced_accuracy": sum(known) / len(known), "rarest_third": 0.1, "labels": labels}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"recipe": recipe.to_dict()}))
    (folder / "result.json").write_text(json.dumps(result))
    with open(folder / "history.csv", "w", newline="") as file:
        csv.writer(file).writerows([["epoch", "val_balanced_accuracy"], *history])
    return folder


@pytest.fixture
def runs(tmp_path):
    """(method, seed, shares by label, eta) ...: runs of them."""

    def make(*described):
        folders = [
            write_run(tmp_path / str(i), method, seed, shares, eta) for i, (method, seed, shares, eta) in enumerate(described)
        ]
        return observations.read_runs(folders)

    return make


def test_class_sizes_are_those_of_the_first_run_of_each_dataset(runs):
    assert observations.class_sizes(runs(("ce", 0, (0.5, 0.6), 0.1), ("crl", 0, (0.5, 0.6), 0.1))) == {
        "shop": {"hat": [90, 10], "colour": [50, 0, 25]}
    }


def test_gains_are_paired_by_seed_and_labels_go_by_imbalance(runs):
    shares = {
        ("ce", 0): (0.5, 0.6),
        ("ce", 1): (0.6, 0.7),
        ("crl", 0): (0.55, 0.5),
        ("crl", 1): (0.7, None),
        ("crl", 7): (0.9, 0.9),
    }
    gains = observations.gains_over(runs(*((method, seed, of, 0.1) for (method, seed), of in shares.items())), "ce")
    # colour 50 : 25 (green has no training image), hat 90 : 10 with 10 % positives.
    assert (gains.names, gains.ratios) == (["colour", "hat"], [2.0, 9.0])
    assert math.isnan(gains.levels[0]) and gains.levels[1] == pytest.approx(40)
    for place, label in ((1, 0), (0, 1)):
        expected, relative = [], []
        for seed in (0, 1):
            of_ce, of_crl = shares["ce", seed][label], shares["crl", seed][label]
            if of_crl is not None:
                expected.append(100 * (of_crl - of_ce))
                relative.append(100 * (of_crl - of_ce) / of_ce)
        assert gains.points["crl"][place] == pytest.approx(expected)
        assert gains.relative["crl"][place] == pytest.approx(relative)
    assert list(gains.points) == ["crl"]


def test_a_sweep_has_a_line_per_method_and_a_place_per_value_with_its_seeds(runs):
    swept = runs(
        ("class_rel", 0, (0.5, 0.7), 1.0), ("class_rel", 0, (0.2, 0.4), 0.01), ("class_rel", 1, (0.3, 0.5), 0.01),
        ("class_dis", 0, (0.1, 0.1), 0.01), ("ce", 0, (0.4, 0.4), 0.1),
    )  # fmt: skip
    crl, dis, _ = observations.over_setting(swept, "crl.eta", names={"class_rel": "CRL"})
    assert (crl.name, crl.places, crl.printed, dis.name, dis.places) == ("CRL", [0.01, 1.0], False, "class_dis", [0.01])
    assert crl.values[0] == pytest.approx([30, 40]) and crl.values[1] == pytest.approx([60])
    rare = observations.over_setting(swept[:1], "crl.eta", lambda result: result["rarest_third"])
    assert rare[0].values[0] == pytest.approx([10])
    places, by_label = observations.labels_over_setting(swept[:3], "crl.eta")
    assert places == [0.01, 1.0] and list(by_label) == ["hat", "colour"]
    assert by_label["colour"][0] == pytest.approx([40, 50]) and by_label["hat"][1] == pytest.approx([50])
    level = observations.level(swept[-1:], "cross-entropy")
    assert level.places is None and level.values[0] == pytest.approx([40])


def test_a_sweep_of_what_is_no_number_is_refused(tmp_path):
    (one,) = observations.read_runs([write_run(tmp_path / "run", kappa=None)])
    with pytest.raises(ValueError, match=r"setting 'crl.kappa' must be a number in every run, received None in .*run"):
        observations.over_setting([one], "crl.kappa")


def test_an_epoch_that_ran_twice_counts_once_and_a_shorter_run_ends_sooner(tmp_path):
    long = write_run(tmp_path / "a", history=[(0, 0.1), (1, 0.2), (1, 0.3), (2, "")])
    short = write_run(tmp_path / "b", history=[(0, 0.5)])
    line = observations.over_epochs(observations.read_runs([long, short]), "ce")
    assert (line.places, line.values) == ([1, 2, 3], [[10.0, 50.0], [30.0], [None]])
    with pytest.raises(ValueError, match=r"column must be one of \['epoch', 'val_balanced_accuracy'\], received 'loss'"):
        observations.over_epochs(observations.read_runs([long]), "ce", "loss")


def test_a_folder_without_a_finished_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must hold finished runs; .*nowhere lacks config.json, result.json"):
        observations.read_runs([tmp_path / "nowhere"])


def test_the_power_law_is_the_formula_of_the_paper():
    sizes = observations.power_law_sizes([0.4, 1.0])
    for gamma, of in sizes.items():
        # f(i) = a / (i^gamma + b) through f(1) = 500 and f(100) = 25.
        b = (25 * 100**gamma - 500) / 475
        assert of.tolist() == [round(500 * (1 + b) / (i**gamma + b)) for i in range(1, 101)]


@pytest.mark.parametrize(
    ("counts", "present", "hidden", "chosen"),
    [
        ([5, 90, 80, 2, 2, 70], [9] * 6, [], [1, 2, 4, 3]),
        # Without training images, without images to show, or hidden: not chosen.
        ([5, 90, 80, 0, 2, 70], [9, 9, 0, 9, 9, 9], [1], [5, 0, 4]),
        ([9, 3], [1, 1], [], [0, 1]),
        ([3, 3, 3], [1, 1, 1], [], [2, 1, 0]),
    ],
)
def test_the_frequent_classes_come_first_and_the_rarest_last(counts, present, hidden, chosen):
    assert outputs.choose_classes(counts, present, 2, 2, hidden) == chosen


# Outputs of models

CLASSES = ("apple", "bear", "woman", "worm")


def made(seed, features=True, name="ce", dataset="cifar100_imb", n=40):
    """Outputs with many ties: two labels, the second with 4 classes, some images not annotated."""
    rng = np.random.default_rng(seed)
    schema = AttributeSchema((Attribute("hat", ("no", "yes")), Attribute("object", CLASSES)))
    labels = np.stack([np.arange(n) % 2, np.random.default_rng(9).integers(-1, 4, n)], axis=1).astype(np.int32)
    split = Split(np.tile(np.arange(n, dtype=np.uint8)[:, None, None, None], (1, 4, 6, 3)), labels)
    data = Data(
        Dataset(dataset, schema, {"train": split, "validation": split, "test": split}),
        [np.array([20, 20]), np.array([500, 90, 25, 25])],
        (8, 8),
        16,
        0,
    )
    scores = np.round(rng.uniform(size=(n, 6)), 1).astype(np.float32)
    decisions = np.stack([scores[:, :2].argmax(1), scores[:, 2:].argmax(1)], axis=1)
    return Outputs(
        name, data, "test", labels, scores, decisions, rng.integers(0, 3, (n, 2, 5)).astype(np.float32) if features else None
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_hardest_of_a_class_are_those_of_the_definition(seed):
    of = made(seed)
    for c in range(4):
        same, other = [], []
        for i, truth in enumerate(of.labels[:, 1].tolist()):
            if truth == c:
                same.append((float(of.scores[i, 2 + c]), i))
            elif truth != -1:
                other.append((-float(of.scores[i, 2 + c]), i))
        positives, negatives = outputs.hardest_of_class(of, "object", c)
        assert positives.tolist() == [i for _, i in sorted(same)]
        assert negatives.tolist() == [i for _, i in sorted(other)]


@pytest.mark.parametrize("seed", range(3))
def test_the_hardest_of_an_anchor_are_those_of_the_definition(seed):
    of = made(seed)
    for anchor in np.flatnonzero(of.labels[:, 1] >= 0)[:5]:
        same, other = [], []
        for i, truth in enumerate(of.labels[:, 1].tolist()):
            distance = math.sqrt(
                sum((float(a) - float(b)) ** 2 for a, b in zip(of.features[i, 1], of.features[anchor, 1], strict=True))
            )
            if truth == -1 or i == anchor:
                continue
            (same if truth == of.labels[anchor, 1] else other).append((distance, i))
        positives, negatives, distances = outputs.hardest_of_anchor(of, "object", int(anchor))
        assert positives.tolist() == [i for _, i in sorted(same, key=lambda pair: (-pair[0], pair[1]))]
        assert negatives.tolist() == [i for _, i in sorted(other)]
        assert distances[negatives[0]] == pytest.approx(min(d for d, _ in other))


def test_changed_decisions_are_those_of_a_loop_largest_change_of_the_score_first():
    before, after = made(0), made(1, name="crl")
    right, wrong = [], []
    for i, truth in enumerate(before.labels[:, 1].tolist()):
        if truth == -1:
            continue
        rise = float(after.scores[i, 2 + truth]) - float(before.scores[i, 2 + truth])
        was, is_now = before.decisions[i, 1] == truth, after.decisions[i, 1] == truth
        if not was and is_now:
            right.append((-rise, i))
        if was and not is_now:
            wrong.append((rise, i))
    changes = outputs.changed_decisions(before, after, "object")
    rounded = [[(round(rise, 4), i) for rise, i in side] for side in (right, wrong)]
    assert changes.corrected.tolist() == [i for _, i in sorted(rounded[0])] and right
    assert changes.broken.tolist() == [i for _, i in sorted(rounded[1])] and wrong
    with pytest.raises(ValueError, match="ce and crl must have the same labels"):
        outputs.changed_decisions(before, after._replace(labels=after.labels * 0), "object")


@pytest.mark.parametrize("level", ["class", "instance"])
def test_mined_rows_show_the_hardest_images_and_never_people(level):
    of = made(2)
    rows = outputs.mined_rows(of, "object", [1, 2, 3], level, shown=3)
    # The row of class 2, woman, is left out.
    assert [row.title for row in rows] == ["bear (90 training images)", "worm (25 training images)"]
    for row, c in zip(rows, (1, 3), strict=True):
        # An image's pixels are its index.
        shown = [int(picture.image[0, 0, 0]) for picture in row.pictures]
        assert 2 not in of.labels[shown, 1] and row.pictures[0].image.shape == (4, 6, 3)
        if level == "class":
            positives, negatives = outputs.hardest_of_class(of, "object", c)
            assert row.pictures[0].caption == f"score {of.scores[shown[0], 2 + c]:.2g}"
        else:
            assert row.pictures[0].kind == "anchor" and shown[0] == np.flatnonzero(of.labels[:, 1] == c)[0]
            positives, negatives, _ = outputs.hardest_of_anchor(of, "object", shown.pop(0))
        assert shown[:3] == positives[:3].tolist()
        assert shown[3:] == [i for i in negatives.tolist() if of.labels[i, 1] != 2][:3]
        assert row.pictures[-1].caption.endswith("\n" + CLASSES[of.labels[shown[-1], 1]])


def test_changed_rows_count_and_show_both_directions():
    before, after = made(0), made(1, name="crl")
    changes = outputs.changed_decisions(before, after, "object")
    right, wrong = ([i for i in of.tolist() if before.labels[i, 1] == 0] for of in changes)
    total = int((before.labels[:, 1] == 0).sum())
    (row,) = outputs.changed_rows(before, after, "object", [2, 0], shown=1)
    assert row.title == f"apple (500 in training): {len(right)} of {total} become right, {len(wrong)} wrong"
    assert [(int(p.image[0, 0, 0]), p.kind) for p in row.pictures] == [(right[0], "right"), (wrong[0], "wrong")]
    assert [p.caption for p in row.pictures] == [
        f"was {CLASSES[before.decisions[right[0], 1]]}", f"now {CLASSES[after.decisions[wrong[0], 1]]}"
    ]  # fmt: skip


def test_images_of_faces_are_never_read(tmp_path):
    faces = made(0, dataset="celeba")
    for show in (lambda: outputs.mined_rows(faces, "object", [1]), lambda: outputs.changed_rows(faces, made(1), "object", [0])):
        with pytest.raises(ValueError, match="no image of celeba may be shown, because its images are faces of people"):
            show()
    # Also under another name: no file of these is there to be read.
    split = faces.data.dataset.splits["test"]
    paths = np.array([f"{tmp_path}/img_CelebA/{i}.jpg" for i in range(len(split))], dtype=np.dtypes.StringDType())
    files = Split(paths, split.labels)
    dataset = Dataset("attribute_csv", faces.data.dataset.schema, {"train": files, "validation": files, "test": files})
    data = Data(dataset, faces.data.counts, (8, 8), 16, 0)
    with pytest.raises(ValueError, match="because a path names celeba"):
        outputs.images_of(data, "test", [0])


def test_a_feature_map_of_pca_keeps_the_directions_of_most_variance_and_names_neighbours():
    of = made(0)
    classes = [0, 3]
    drawn = outputs.feature_map(of, "object", classes, "cross-entropy")
    shown = [i for i, truth in enumerate(of.labels[:, 1]) if truth in classes]
    centred = of.features[shown, 1].astype(np.float64) - of.features[shown, 1].mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    for axis in range(2):
        expected = centred @ vectors[:, -1 - axis]
        np.testing.assert_allclose(np.abs(drawn.points[:, axis]), np.abs(expected), atol=1e-5)
        assert drawn.axes[axis] == f"PCA {axis + 1} ({100 * values[-1 - axis] / values.sum():.0f} % of the variance)"
    assert drawn.classes.tolist() == [classes.index(truth) for truth in of.labels[shown, 1]]
    # Two far groups: every neighbour is of its own class.
    apart = of._replace(features=np.random.default_rng(0).normal(of.labels[:, 1:] * 100.0, size=(40, 2)).astype(np.float32))
    drawn = outputs.feature_map(apart, "object", [0, 3], "CRL", "tsne")
    assert drawn.title == "CRL\nneighbour of own class: rarest 100 %, others 100 %"
    assert drawn.points.shape == (len(shown), 2) and np.isfinite(drawn.points).all() and drawn.axes == ("t-SNE 1", "t-SNE 2")


@pytest.mark.parametrize(
    ("show", "said"),
    [
        (lambda: outputs.feature_map(made(0), "object", [0], "", "umap"), "method must be pca or tsne, received 'umap'"),
        (lambda: outputs.feature_map(made(0), "object", [], ""), "3 images or more in the split test, received 0"),
        (lambda: outputs.feature_map(made(0, features=False, name="lmle"), "object", [0], ""), "a model of lmle has none"),
        (lambda: outputs.mined_rows(made(0), "object", [0], "pixel"), "level must be class or instance, received 'pixel'"),
        (lambda: made(0).truth("shoe"), r"label must be one of \['hat', 'object'\], received 'shoe'"),
    ],
)
def test_a_mistake_is_one_clear_error(show, said):
    with pytest.raises(ValueError, match=said):
        show()


def test_the_decisions_of_a_finished_run_give_its_confusion_matrices(tiny_recipe, tmp_path):
    tiny_recipe.method = "logit_adjustment"
    parts = assemble(tiny_recipe)
    context = Context(parts, parts.load(), tmp_path / "run")
    task = prepare(context)
    task.begin()
    model = task.make_model()
    model.save(context.workdir / "model.keras")
    result = {**parts.names, **measure(context, model).numbers}
    (context.workdir / "result.json").write_text(json.dumps(result))
    first, again = outputs.outputs_of([tmp_path / "run", tmp_path / "run"])
    assert first.data is again.data and (first.name, first.split) == ("logit_adjustment", "test")
    for j, (name, label) in enumerate(result["labels"].items()):
        confusion = np.zeros_like(label["confusion"])
        for truth, decided in zip(first.labels[:, j], first.decisions[:, j], strict=True):
            if truth >= 0:
                confusion[truth, decided] += 1
        assert confusion.tolist() == label["confusion"]
        np.testing.assert_allclose(first.scores_of(name).sum(1), 1, rtol=1e-5)
    # Scores are those of the layers as they are; the features are what the last layer sees.
    assert len(first.features) == len(first.labels) == 12
    images = outputs.images_of(first.data, "test", [3, 0])
    assert [image.shape for image in images] == [(16, 16, 3)] * 2 and not np.array_equal(*images)
