"""Figures of decisions: written for few and many labels and classes, and their lines are the numbers."""

import numpy as np
import pytest
from figure_texts import text_boxes
from PIL import Image
from sklearn.metrics import precision_recall_curve

from crl_tf.calibration import Reliability, reliability
from crl_tf.experiment.report import decision_figures as of_decisions
from crl_tf.experiment.report.decision_figures import precision_recall
from crl_tf.ranking import one_against_rest_scores
from crl_tf.schema import Attribute, AttributeSchema

CASES = {"one label": (2,), "forty labels": (2,) * 40, "300 classes": (300,), "mixed": (2, 5, 13, 300)}
COUNT = 60


class Material:
    """Test images of labels with so many classes: the rarest class of every label has none, the second label has none at all."""

    def __init__(self, sizes):
        rng = np.random.default_rng(0)
        self.schema = AttributeSchema(
            tuple(
                Attribute(f"a label of $30 or more letters_{i}", tuple(f"class $number_{k}" for k in range(size)))
                for i, size in enumerate(sizes)
            )
        )
        self.counts = [rng.permutation(np.geomspace(5000, 2, size).astype(int)) for size in sizes]
        self.labels = np.stack([rng.integers(-1, size, COUNT) for size in sizes], axis=1)
        for i, counts in enumerate(self.counts):
            self.labels[self.labels[:, i] == counts.argmin(), i] = counts.argmax()
        if len(sizes) > 1:
            self.labels[:, 1] = -1
        self.logits = rng.normal(size=(COUNT, sum(sizes))).astype(np.float32)
        decided = np.stack([part.argmax(1) for part in np.split(self.logits, np.cumsum(sizes)[:-1], axis=1)], axis=1)
        self.result = {}
        for i, (attribute, counts) in enumerate(zip(self.schema.attributes, self.counts, strict=True)):
            confusion = np.zeros((len(counts), len(counts)), int)
            known = self.labels[:, i] >= 0
            np.add.at(confusion, (self.labels[known, i], decided[known, i]), 1)
            names = dict(zip(attribute.classes, map(int, counts), strict=True))
            self.result[attribute.name] = {"train_counts": names, "confusion": confusion.tolist()}
        positive = rng.random(COUNT) < 0.3
        diagram = reliability(rng.random(COUNT), positive)
        nothing = Reliability(np.full(10, np.nan), np.full(10, np.nan), np.zeros(10, int))
        self.diagrams = {
            "as trained": {"rarest_third": diagram, "most_frequent_third": diagram},
            "calibrated": {"rarest_third": nothing, "most_frequent_third": diagram},
        }

    def save(self, figure, path):
        if figure == "precision_recall":
            of_decisions.save_precision_recall(self.logits, self.labels, self.schema, self.counts, path)
        elif figure == "confusions":
            of_decisions.save_confusions(self.result, path)
        else:
            of_decisions.save_reliability(self.diagrams, path)


@pytest.fixture
def drawn(monkeypatch):
    """The figures that the code would write, instead of files."""
    found = []
    monkeypatch.setattr("crl_tf.experiment.report.decision_figures.write_png", lambda figure, path: found.append(figure))
    return found


def lines(panel):
    return [(line.get_xdata(), line.get_ydata()) for line in panel.lines]


@pytest.mark.parametrize("figure", ["precision_recall", "confusions", "reliability"])
def test_a_figure_is_written(figure, tmp_path):
    Material(CASES["mixed"]).save(figure, tmp_path / "new" / "figure.png")
    with Image.open(tmp_path / "new" / "figure.png") as image:
        assert image.format == "PNG" and min(image.size) > 200
        assert len(np.unique(np.asarray(image.convert("L")))) > 10


@pytest.mark.parametrize(
    ("figure", "case"),
    [*((figure, case) for figure in ("precision_recall", "confusions") for case in CASES), ("reliability", "one label")],
)
def test_every_text_lies_on_the_canvas(figure, case, drawn, monkeypatch):
    Material(CASES[case]).save(figure, "unused.png")
    boxes, width, height = text_boxes(drawn[0], monkeypatch)
    assert boxes
    assert not [(text, box) for text, box in boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height]


@pytest.mark.parametrize("kind", ["different", "ties", "equal"])
def test_precision_and_recall_are_scikit_learns(kind):
    rng = np.random.default_rng(0)
    for count in (2, 3, 50, 400):
        positive = rng.random(count) < 0.2
        positive[0] = True
        scores = {"different": rng.random(count), "ties": rng.integers(0, 5, count) / 4, "equal": np.full(count, 0.5)}[kind]
        recall, precision = precision_recall(scores, positive)
        expected = precision_recall_curve(positive, scores)
        # Scikit-learn's come from the lowest score to the highest, and then a point of no detection.
        np.testing.assert_allclose(recall, expected[1][-2::-1])
        np.testing.assert_allclose(precision, expected[0][-2::-1])


def test_curves_are_those_of_the_rarest_classes_that_have_test_images(drawn):
    material = Material((2, 3, 4))
    material.save("precision_recall", "unused.png")
    assert len(drawn[0].axes) == 3
    # The rarest class of the binary label has no test image, and of the second label nothing is known.
    assert [len(panel.lines) for panel in drawn[0].axes] == [0, 0, 4]
    known = material.labels[:, 2] >= 0
    scores = one_against_rest_scores(material.logits[known, 5:])
    for place, k in enumerate(np.argsort(material.counts[2])[1:3]):
        positive = material.labels[known, 2] == k
        recall, precision = precision_recall(scores[:, k], positive)
        curve, share = lines(drawn[0].axes[2])[2 * place : 2 * place + 2]
        np.testing.assert_array_equal(curve, (recall, precision))
        assert set(share[1]) == {positive.mean()}


def test_a_long_curve_is_thinned_and_keeps_its_ends(drawn):
    rng = np.random.default_rng(0)
    labels, logits = rng.integers(0, 2, (5000, 1)), rng.normal(size=(5000, 2)).astype(np.float32)
    schema = AttributeSchema((Attribute("a", ("x", "y")),))
    of_decisions.save_precision_recall(logits, labels, schema, [np.array([9, 1])], "unused.png")
    recall, precision = precision_recall(logits[:, 1] - logits[:, 0], labels[:, 0] == 1)
    found = lines(drawn[0].axes[0])[0]
    assert len(found[0]) <= 200
    assert [(of[0], of[-1]) for of in found] == [(recall[0], recall[-1]), (precision[0], precision[-1])]


def test_confusions_are_shares_of_each_class_with_the_rarest_first(drawn):
    result = {"hue": {"train_counts": {"r": 50, "g": 2, "b": 7}, "confusion": [[6, 3, 1], [0, 0, 0], [1, 1, 2]]}}
    of_decisions.save_confusions(result, "unused.png")
    (panel,) = drawn[0].axes
    shares = panel.images[0].get_array().filled(np.nan)
    np.testing.assert_allclose(shares, [[np.nan] * 3, [0.25, 0.5, 0.25], [0.3, 0.1, 0.6]])
    assert [tick.get_text() for tick in panel.get_yticklabels()] == ["g", "b", "r"]
    # Nothing is written where there is no image.
    assert [text.get_text() for text in panel.texts] == ["25%", "50%", "25%", "30%", "10%", "60%"]


def test_a_figure_shows_the_labels_with_the_rarest_classes(drawn):
    result = {f"l{i}": {"train_counts": {"x": 1000, "y": 1 + (i * 7) % 50}, "confusion": [[1, 0], [0, 1]]} for i in range(50)}
    of_decisions.save_confusions(result, "unused.png")
    shown = [panel.get_title() for panel in drawn[0].axes if panel.get_visible()]
    assert shown == [name for name, facts in result.items() if facts["train_counts"]["y"] <= 42]


def test_reliability_shows_the_bins_that_have_samples_and_the_error(drawn):
    material = Material((2,))
    material.save("reliability", "unused.png")
    diagram = material.diagrams["as trained"]["rarest_third"]
    first, second = drawn[0].axes
    assert first.get_title() == "as trained: error {0:.1f} % and {0:.1f} %".format(100 * diagram.error)
    assert second.get_title() == f"calibrated: error – and {100 * diagram.error:.1f} %"
    filled = diagram.count > 0
    for found in lines(first)[1:]:
        np.testing.assert_array_equal(found, (diagram.mean_score[filled], diagram.share[filled]))
    assert [len(found[0]) for found in lines(second)] == [2, 0, filled.sum()]
