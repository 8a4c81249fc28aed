"""Every text of every figure lies on its canvas; the figure of rare classes, by plain arithmetic."""

import numpy as np
import pytest
from figure_texts import text_boxes

from crl_tf.experiment.report import figures as of_data
from crl_tf.experiment.report import method_figures as of_methods

LONG = "class_rel_logit_adjusted+class_balanced_sampling+threshold_adjustment"
LABEL = "a label with a name of more than thirty letters"


def label(train_counts, sensitivity, name="class number {}"):
    names = [name.format(i) for i in range(len(train_counts))]
    known = [share for share in sensitivity if share is not None]
    return {
        "balanced_accuracy": sum(known) / len(known),
        "accuracy": 0.9,
        "sensitivity": dict(zip(names, sensitivity, strict=True)),
        "confusion": [],
        "train_counts": dict(zip(names, train_counts, strict=True)),
    }


def result(method, seed=0, labels=None, **changes):
    run = {"dataset": "digits", "model": "small", "method": method, "seed": seed, "epochs": 3, "seconds": 10.0, "rule": "argmax"}
    run |= {"balanced_accuracy": 0.7, "accuracy": 0.9, "rarest_third": 0.5}
    rules = ("argmax", "threshold_adjustment", "logit_adjustment")
    run["rules"] = {rule: {"balanced_accuracy": 0.7 + place / 9} for place, rule in enumerate(rules)}
    return run | {"labels": labels or {"hat": label([90, 10], [0.9, 0.5])}} | changes


def results(methods, labels, classes):
    counts = np.geomspace(10_000, 1, classes).astype(int).tolist()
    sensitivity = np.linspace(1, 0, classes).tolist()
    return [
        result(method, labels={f"{LABEL} {i}": label(counts, sensitivity, "a class named {}") for i in range(labels)})
        for method in methods
    ]


def inspection(runs):
    return {
        "labels": {
            name: {"ratio": 1e6, "classes": {k: {"train": count} for k, count in facts["train_counts"].items()}}
            for name, facts in runs[0]["labels"].items()
        }
    }


FIGURES = {
    "gain_by_imbalance": of_methods.save_gain_by_imbalance,
    "relative_gain": of_methods.save_relative_gain,
    "accuracy_by_rule": of_methods.save_accuracy_by_rule,
    "rare_classes": of_methods.save_rare_classes,
    "class_distributions": of_data.save_class_distributions,
    "sensitivity_by_frequency": of_data.save_sensitivity_by_frequency,
    "class_sizes": lambda runs, path: of_data.save_class_sizes(inspection(runs), path),
    "association": lambda runs, path: of_data.save_association(
        list(runs[0]["labels"]), np.zeros([len(runs[0]["labels"])] * 2), path
    ),
}


@pytest.fixture
def figures(monkeypatch):
    """The figures that the code would write, instead of files."""
    drawn = []
    for module in ("figures", "method_figures"):
        monkeypatch.setattr(f"crl_tf.experiment.report.{module}.write_png", lambda figure, path: drawn.append(figure))
    return drawn


MANY = ["ce", *(f"{LONG}{i}" for i in range(6))]


@pytest.mark.parametrize(
    ("figure", "methods", "labels", "classes"),
    [
        *((figure, [LONG, f"{LONG}2"], 1, 2) for figure in FIGURES),
        *((figure, MANY, 5, 2) for figure in FIGURES),
        ("gain_by_imbalance", [LONG, f"{LONG}2"], 1, 41),
        ("gain_by_imbalance", MANY, 15, 2),
        ("gain_by_imbalance", ["ce", "crl"], 90, 2),
        ("class_distributions", ["ce"], 1, 13),
        ("class_distributions", ["ce"], 10, 5),
        ("class_sizes", ["ce"], 81, 2),
        ("association", ["ce"], 81, 2),
    ],
)
def test_every_text_lies_on_the_canvas(figure, methods, labels, classes, figures, monkeypatch):
    FIGURES[figure](results(methods, labels, classes), "unused.png")
    boxes, width, height = text_boxes(figures[0], monkeypatch)
    outside = [(text, box) for text, box in boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height]
    assert boxes and not outside


def test_the_title_of_the_best_methods_is_broken_where_the_figure_ends(figures):
    shares = {"ce": 0.9, "class_rel": 0.41, "lmle": 0.4} | {f"m{i}": 0.5 + i / 100 for i in range(10)}
    labels = {f"l{i}": label([1000, 1 + i], [0.5, 0.5]) for i in range(41)}
    of_methods.save_gain_by_imbalance(
        [result(m, labels=labels, balanced_accuracy=share) for m, share in shares.items()], "unused.png"
    )
    title = figures[0].get_suptitle()
    assert " ".join(title.split()) == (
        "gain in class-balanced accuracy over ce, mean over seeds the best 6 of 12 methods by class-balanced accuracy, and"
        " class_rel, lmle"
    )


# save_rare_classes


def bars(panel):
    """Of each line of a panel: places, means and half the length of the bars (None without one)."""
    found = []
    for container in panel.containers:
        line, _, (segments,) = container
        lengths = [None if np.size(s) < 4 or np.isnan(s).any() else (s[1, 1] - s[0, 1]) / 2 for s in segments.get_segments()]
        found.append((line.get_xdata(), line.get_ydata(), lengths))
    return found


def test_rare_classes_are_means_over_bins_and_seeds_and_gains_are_paired_by_seed(figures):
    # From 1 to 256 in 8 bins of a factor of 2: 1 and 1 share one, 64 and 100 share one, 256 is in the last.
    def runs(method, *of_seeds):
        return [result(method, seed, {"a": label([1, 1, 64, 100, 256], shares)}) for seed, shares in of_seeds]

    ce = runs("ce", (0, [0.0, 0.2, 0.5, 0.7, 1.0]), (1, [0.2, 0.4, 0.5, 0.7, 1.0]))
    crl = runs("crl", (1, [0.5, 0.7, 0.6, 0.6, 0.9]), (0, [0.2, 0.4, 0.5, 0.7, 0.9]), (7, [0.4, 0.4, 0.0, 0.0, 0.9]))
    of_methods.save_rare_classes(ce + crl + runs("focal", (0, [1.0] * 5)), "unused.png", ["crl"])
    sensitivity, gain = figures[0].axes
    (places, means, lengths), (_, crl_means, crl_lengths) = bars(sensitivity)
    assert places * 1.05**0.5 == pytest.approx([1, 80, 256])  # sqrt(64 * 100), half a step to the left
    assert means == pytest.approx([20, 60, 100]) and lengths == pytest.approx([10 * 2**0.5, 0, 0])  # 10, 30
    # 60, 30, 40: deviations 50/3, -40/3, -10/3; 60, 60, 0.
    assert crl_means == pytest.approx([130 / 3, 40, 90])
    assert crl_lengths == pytest.approx([(4200 / 9 / 2) ** 0.5, 1200**0.5, 0])
    # Seeds 0 and 1 alone: 30 - 10 and 60 - 30.
    ((_, gains, gain_lengths),) = bars(gain)
    assert gains == pytest.approx([25, 0, -10]) and gain_lengths == pytest.approx([5 * 2**0.5, 0, 0])
    assert "digits · small · 3 epochs · 2 to 3 seeds" in figures[0].get_supxlabel()
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["ce", "crl"]


def test_rare_classes_of_one_seed_have_no_bars_and_untrained_classes_stand_at_0(figures):
    labels = {"a": label([0, 8, 800], [0.1, 0.5, None])}
    of_methods.save_rare_classes([result("ce", labels=labels), result("crl", labels=labels)], "unused.png")
    sensitivity, _ = figures[0].axes
    (places, means, lengths), _ = bars(sensitivity)
    assert means == pytest.approx([10, 50]) and lengths == [None, None]
    figures[0].canvas.draw()
    ticks = dict(zip((t.get_text() for t in sensitivity.get_xticklabels()), sensitivity.get_xticks(), strict=True))
    assert ticks["0"] == pytest.approx(places[0] * 1.05**0.5)


def test_rare_classes_need_methods_to_compare_in_one_setting():
    runs = [result("ce"), *(result(f"m{i}") for i in range(7))]
    for given, methods in ((runs, None), (runs, ["crl"]), (runs[:1], None), ([*runs[:2], result("crl", epochs=9)], None)):
        with pytest.raises(
            ValueError, match=r"methods must be 1 to 6 of \['ce.*, all of one dataset, model and number of epochs"
        ):
            of_methods.save_rare_classes(given, "unused.png", methods)
