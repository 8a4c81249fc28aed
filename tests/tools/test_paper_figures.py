"""tools/paper/figures.py, sweeps.py and pictures.py: what is drawn is what was given; no people; nothing to draw is an error."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.text import Text
from paper import figures, pictures, style, sweeps
from paper.pictures import Picture, PictureRow
from paper.style import Series

from crl_tf.experiment.report.figures import COLOURS, GREY

NAN = float("nan")
NAMES = ["hat", "bald", "smiling"]
RATIOS = [20.0, None, 1.5]
GAINS = {"CRL": [[1.0, 3.0], [-2.0], []], "LMLE": [[NAN], [None, 4.0], [0.5, 0.5]]}
PAPER_GAINS = {"CRL": [6.0, 2.0, NAN]}
ETAS = [0.1, 0.001, 0.01]
BY_LABEL = {"hat": [[60.0, 62.0], [50.0, 50.0], [70.0, 72.0]], "sleeve": [[80.0, 80.0], [78.0, 80.0], [88.0, NAN]]}


def images(*values):
    return [np.full((4, 5, 3), value, np.uint8) for value in values]


def picture_rows():
    a, b, c = images(10, 20, 30)
    rows = [
        PictureRow("worm (25)", [Picture(a, "score 0.01", "positive"), Picture(b, "score 0.9\nsnake", "negative")]),
        PictureRow("$wolf$", [Picture(c, "", "anchor")]),
        PictureRow("nothing", []),
    ]
    return pictures.picture_rows(rows, "cifar100_imb", ["object"], "a note", {"positive": "of the class"})


def feature_maps():
    points = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]])
    maps = [figures.FeatureMap(title, points + i, np.array([0, 1, 1, 0]), ("PCA 1", "PCA 2")) for i, title in enumerate("ab")]
    return figures.feature_maps(maps, ["apple (500)", "worm (25)"])


SERIES = [
    Series("CRL", [25, 1], [[80.0, 82.0], [75.0]]),
    Series("cross-entropy", None, [[70.0, 74.0]]),
    Series("CRL, paper", [25.0], [[80.42]], True),
    Series("empty", [1, 2], [[NAN], []]),
]

FIGURES = {
    "imbalance": lambda: figures.class_imbalance(
        {"CelebA": {str(i): [100_000 - i, 50 + i] for i in range(40)}, "digits": {"digit": [500, 20, 4]}},
        {"CelebA": (40, 135_779)},
    ),
    "feature_maps": feature_maps,
    "gain": lambda: figures.gain_by_label(NAMES, RATIOS, GAINS, "cross-entropy", PAPER_GAINS),
    "class_sizes": lambda: figures.class_size_curves({1.0: [500, 419, 25], 0.2: [500, 170, 25]}),
    "over": lambda: sweeps.accuracy_over(SERIES, "hard samples mined, κ", note="fashion products, 20 epochs, as X-Domain"),
    "loss_weight": lambda: sweeps.accuracy_over_loss_weight(ETAS, BY_LABEL, [Series("ce", None, [[60.0, 61.0]])]),
    "relative": lambda: figures.relative_gain([45.0, 30.0, 1.0], GAINS, "cross-entropy"),
    "pictures": picture_rows,
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_text_lies_on_the_canvas_and_is_large_enough_for_a_phone(name, monkeypatch):
    figure, draw, drawn = FIGURES[name](), Text.draw, []

    def recorded(self, renderer, *args, **kwargs):
        draw(self, renderer, *args, **kwargs)
        if self.get_visible() and self.get_text().strip():
            drawn.append((self.get_text(), self.get_fontsize(), self.get_window_extent(renderer)))

    monkeypatch.setattr(Text, "draw", recorded)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    assert figure.get_figwidth() == style.WIDTH
    assert drawn and not [(text, box) for text, _, box in drawn if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height]
    # 6 inches at the 390 pixels of a phone: 9 pixels and more.
    assert min(size for _, size, _ in drawn) * 390 / (72 * style.WIDTH) > 9


def test_every_class_is_a_bar_or_a_step_of_an_outline_and_the_paper_is_two_grey_lines():
    large, small = FIGURES["imbalance"]().axes
    sizes, edges, _ = large.patches[0].get_data()
    assert sizes.tolist() == sorted([*range(50, 90), *(100_000 - i for i in range(40))], reverse=True)
    assert edges.tolist() == [i + 0.5 for i in range(81)]
    assert [(line.get_ydata()[0], line.get_color()) for line in large.lines] == [(40, GREY), (135_779, GREY)]
    assert [bar.get_height() for bar in small.patches] == [500, 20, 4] and not small.lines
    assert small.get_title() == "digits\n1 label, 3 classes, imbalance to 1:125"
    assert large.get_ylim()[0] < 40 and large.get_ylim()[1] > 135_779


def test_a_feature_map_has_the_points_of_each_class_and_the_last_class_lies_on_top():
    first, second = feature_maps().axes
    of_classes = [dots.get_offsets().tolist() for dots in second.collections]
    assert of_classes == [[[1, 2], [7, 8]], [[3, 4], [5, 6]]]
    assert first.collections[0].get_zorder() < first.collections[1].get_zorder()
    assert (first.get_title(), second.get_title(), first.get_xlabel()) == ("a", "b", "PCA 1")


def bar_ends(segments, axis):
    return [None if np.isnan(s).any() or len(s) < 2 else tuple(s[:, axis].tolist()) for s in segments]


def test_gains_are_bars_by_rising_imbalance_with_bars_of_error_and_the_paper_in_grey():
    figure = FIGURES["gain"]()
    crl, lmle = figure.axes
    # smiling 1:1.5, hat 1:20, then bald, whose ratio is not known; a label without a gain has no bar.
    assert [text.get_text() for text in crl.get_yticklabels()] == ["smiling  1:1.5", "hat  1:20", "bald  –"]
    np.testing.assert_array_equal([bar.get_width() for bar in crl.patches], [NAN, 2.0, -2.0])
    np.testing.assert_array_equal([bar.get_width() for bar in lmle.patches], [0.5, NAN, 4.0])
    assert [to_hex(bar.get_facecolor()).upper() for bar in crl.patches[1:]] == list(COLOURS[:2])
    deviation = np.sqrt(2)  # of 1 and 3, over n - 1
    assert bar_ends(crl.collections[0].get_segments(), 0)[1] == pytest.approx((2 - deviation, 2 + deviation))
    paper = next(line for line in crl.lines if line.get_marker() == "D")
    np.testing.assert_array_equal(paper.get_xdata(), [NAN, 6.0, 2.0])
    assert paper.get_color() == GREY and not [line for line in lmle.lines if line.get_marker() == "D"]
    # The least imbalanced label is on top.
    assert crl.get_ylim()[0] > crl.get_ylim()[1]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["gain", "loss", "± std over seeds", "paper"]


def test_class_sizes_are_curves_by_rising_gamma():
    figure = FIGURES["class_sizes"]()
    assert [line.get_ydata().tolist() for line in figure.axes[0].lines] == [[500, 170, 25], [500, 419, 25]]
    assert figure.axes[0].lines[0].get_xdata().tolist() == [1, 2, 3]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["γ = 0.2: 695 images", "γ = 1: 944 images"]


def test_a_sweep_is_a_line_of_means_with_deviations_a_level_and_the_paper_in_grey():
    (panel,) = FIGURES["over"]().axes
    lines = {line.get_label(): line for line in panel.lines}
    assert "empty" not in lines
    assert (lines["CRL"].get_xdata().tolist(), lines["CRL"].get_ydata().tolist()) == ([1, 25], [75, 81])
    ends = bar_ends(panel.collections[0].get_segments(), 1)
    assert ends[0] is None and ends[1] == pytest.approx((81 - np.sqrt(2), 81 + np.sqrt(2)))
    assert lines["cross-entropy"].get_ydata()[0] == 72
    band = panel.patches[0].get_extents().transformed(panel.transData.inverted())
    assert (band.y0, band.y1) == pytest.approx((72 - 2 * np.sqrt(2), 72 + 2 * np.sqrt(2)))
    paper = lines["CRL, paper"]
    assert (paper.get_ydata().tolist(), paper.get_color(), paper.get_linestyle()) == ([80.42], GREY, "None")


def test_the_paper_has_a_panel_of_its_own_where_it_is_far_away_and_the_same_axis():
    far = [Series("CRL", [1, 25, 50], [[40.0], [41.0], [42.0]]), Series("paper", [25], [[80.42]], True)]
    here, there = sweeps.accuracy_over(far, "κ").axes
    assert [line.get_label() for line in here.lines] == ["CRL"] and [line.get_label() for line in there.lines] == ["paper"]
    assert here.get_xlim() == there.get_xlim() and here.get_ylim()[1] < 50 < there.get_ylim()[0]
    near = [far[0], Series("paper", [25], [[46.0]], True)]
    assert len(sweeps.accuracy_over(near, "κ").axes) == 1


def test_an_axis_spans_two_points_at_least():
    (panel,) = sweeps.accuracy_over([Series("ce", [1, 2], [[40.0], [40.1]])], "epoch").axes
    assert np.ptp(panel.get_ylim()) == pytest.approx(2) and np.mean(panel.get_ylim()) == pytest.approx(40.05)


def test_the_smallest_class_of_one_image_has_a_bar():
    (panel,) = figures.class_imbalance({"digits": {"digit": [500, 1]}}).axes
    assert 0 < panel.get_ylim()[0] < 1 and not [tick for tick in panel.get_yticks() if panel.get_ylim()[0] <= tick < 1]


def test_many_epochs_have_no_markers():
    epochs = range(1, 61)
    (panel,) = sweeps.accuracy_over([Series("ce", epochs, [[e / 2] for e in epochs])], "epoch").axes
    assert panel.lines[0].get_marker() == "None" and panel.lines[0].get_ydata()[-1] == 30


def test_the_loss_weight_shows_the_mean_over_labels_and_how_each_label_differs_from_its_own_mean():
    figure = FIGURES["loss_weight"]()
    above, below = figure.axes
    mean = next(line for line in above.lines if line.get_label() == "mean over 2 labels")
    # Per seed the mean over labels, then the mean over seeds; a seed that lacks a label is left out.
    np.testing.assert_allclose(mean.get_xdata(), [0.001, 0.01, 0.1])
    np.testing.assert_allclose(mean.get_ydata(), [(64 + 65) / 2, 79, (70 + 71) / 2])
    hat, sleeve = below.lines[:2]
    np.testing.assert_allclose(hat.get_ydata(), np.array([50, 71, 61]) - 182 / 3)
    np.testing.assert_allclose(sleeve.get_ydata(), np.array([79, 88, 80]) - 247 / 3)
    assert [text.get_text() for text in figure.legends[1].get_texts()] == ["hat", "sleeve"]
    assert above.get_xscale() == below.get_xscale() == "log"
    many = {str(i): [[50.0 + i]] * 3 for i in range(40)}
    figure = sweeps.accuracy_over_loss_weight(ETAS, many)
    assert len(figure.legends) == 1 and len(figure.axes[1].lines) == 41
    assert len(sweeps.accuracy_over_loss_weight(ETAS, {"object": many["0"]}).axes) == 1


def test_relative_gains_are_points_at_the_imbalance_level():
    crl, lmle = FIGURES["relative"]().axes
    points = crl.containers[0][0]
    np.testing.assert_array_equal(points.get_xdata(), [45, 30, 1])
    np.testing.assert_array_equal(points.get_ydata(), [2, -2, NAN])
    np.testing.assert_array_equal(lmle.containers[0][0].get_ydata(), [NAN, 4, 0.5])
    assert (crl.get_title(), lmle.get_title()) == ("CRL", "LMLE")


def test_pictures_are_the_images_given_in_order_with_frames_and_captions():
    figure = picture_rows()
    shown = [panel for panel in figure.axes if panel.get_visible()]
    assert [panel.images[0].get_array()[0, 0, 0] for panel in shown] == [10, 20, 30]
    assert [panel.get_xlabel() for panel in shown] == ["score 0.01", "score 0.9\nsnake", ""]
    assert [panel.spines["top"].get_edgecolor() == panel.spines["left"].get_edgecolor() for panel in shown] == [True] * 3
    assert [to_hex(panel.spines["top"].get_edgecolor()).upper() for panel in shown[:2]] == list(COLOURS[:2])
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["of the class", "hard negative (of another class)", "the anchor"]
    assert [part.get_suptitle() for part in figure.subfigs] == ["worm (25)", "$wolf$", ""]


@pytest.mark.parametrize(
    ("dataset", "labels", "reason"),
    [
        ("celeba", ["hat"], "its images are faces of people"),
        ("CelebA-large", ["hat"], "its images are faces of people"),
        ("xdomain", ["colour"], "people who wear the clothes"),
        ("deepfashion", ["fabric"], "people who wear the clothes"),
        ("records", ["Wearing_Hat", "Pale_Skin"], "its label 'Pale_Skin' says that they are faces"),
        ("attribute_csv", ["5 o Clock Shadow"], "its label '5 o Clock Shadow' says that they are faces"),
    ],
)
def test_no_picture_of_people_is_drawn(dataset, labels, reason):
    with pytest.raises(ValueError, match=f"no image of {dataset} may be shown, because .*{reason}"):
        pictures.picture_rows([PictureRow("row", [Picture(images(1)[0], "", "right")])], dataset, labels)


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda: figures.class_imbalance({}), "class_imbalance: datasets must hold a training image of each dataset"),
        (lambda: figures.class_imbalance({"a": {"b": [0, 0]}}), "class_imbalance: datasets must hold"),
        (lambda: figures.feature_maps([], ["a"]), "feature_maps: maps must hold a finite point"),
        (
            lambda: figures.feature_maps([figures.FeatureMap("", np.full((2, 2), NAN), np.array([0, 0]))], ["a"]),
            "feature_maps: maps must hold a finite point",
        ),
        (
            lambda: figures.feature_maps([figures.FeatureMap("", np.zeros((2, 2)), np.array([0, 3]))], ["a"]),
            r"feature_maps: names must hold 4 to 7 names, received \['a'\]",
        ),
        (lambda: figures.gain_by_label(["a"], [1.0], {"CRL": [[NAN]]}, "ce"), "gain_by_label: gains must hold a finite number"),
        (lambda: figures.gain_by_label(["a"], [1.0], {}, "ce"), "gain_by_label: gains must hold a finite number"),
        (lambda: figures.gain_by_label(["a"], [1.0], {"CRL": []}, "ce"), "of 'CRL' must hold 1 labels, received 0"),
        (lambda: figures.class_size_curves({}), "class_size_curves: sizes must hold a class of each gamma"),
        (lambda: sweeps.accuracy_over([], "κ"), "accuracy_over: series must hold a finite number"),
        (lambda: sweeps.accuracy_over([Series("CRL", [1], [[NAN, None]])], "κ"), "accuracy_over: series must hold"),
        (lambda: sweeps.accuracy_over([Series("paper", [1], [[3.0]], True)], "κ"), "accuracy_over: series must hold"),
        (lambda: sweeps.accuracy_over_loss_weight([0.1], {}), "by_label must hold a finite number"),
        (lambda: sweeps.accuracy_over_loss_weight([0.1], {"a": []}), r"by_label\['a'\] must hold 1 weights, received 0"),
        (
            lambda: sweeps.accuracy_over_loss_weight([0.1], {"a": [[1.0]], "b": [[1.0, 2.0]]}),
            r"as many seeds of every label at eta = 0.1, received \[1, 2\]",
        ),
        (lambda: figures.relative_gain([1.0], {"CRL": [[None]]}, "ce"), "relative_gain: gains must hold a finite number"),
        (lambda: pictures.picture_rows([PictureRow("row", [])], "digits", ["digit"]), "picture_rows: rows must hold a picture"),
    ],
)
def test_nothing_to_draw_is_one_clear_error(draw, said):
    with pytest.raises(ValueError, match=said):
        draw()
