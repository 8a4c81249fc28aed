"""Tables of results, of an inspection, of methods and of networks: for the terminal, and as grids for Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from crl_tf.experiment.report.aggregate import (
    SETTING,
    UNSEEDED,
    Runs,
    aggregates,
    check_results,
    class_counts,
    differing_fields,
    first_labels,
    imbalance_by_label,
    method_rows,
    rule_names,
)
from crl_tf.experiment.report.grid import (
    Cell,
    Grid,
    best_places,
    field_text,
    imbalance_text,
    interval_text,
    number_cells,
    number_text,
    percent,
    points,
    ratio_text,
    rich_table,
    seconds_text,
    seeds_text,
    text_cells,
)

if TYPE_CHECKING:
    from crl_tf.models.describe import NetworkFacts

SIGNIFICANT = 0.05
"""Below this adjusted p-value a difference to the baseline is marked."""

RAREST = 20
"""Classes that the table of the rarest names."""

ASSOCIATED = 0.3
"""From this Cramér's V on, a pair of labels is named."""

NAMED_LABELS = 80
"""Up to so many labels, a table or a figure has a line with its name for each."""

_HEADINGS = {
    "balanced_accuracy": "balanced\naccuracy %",
    "accuracy": "accuracy\n%",
    "macro_f1": "macro\nF1 %",
    "rarest_third": "rarest\nthird %",
    "most_frequent_third": "most freq.\nthird %",
}

_RANKING = {
    "rarest_third_auroc": "rarest\nAUROC %",
    "rarest_third_average_precision": "rarest\nAP %",
    "auroc": "all\nAUROC %",
    "average_precision": "all\nAP %",
}

_INTERVAL = "95 %\ninterval"


def comparison_table(results: Runs) -> Table:
    """One row per run, the first being the baseline that differences (in points) are taken from.

    Those of dataset, model, epochs and seed that all runs share are the title, the others are columns. The best value of a
    column is bold; values that read the same at the decimals shown are equally good. Differences are of the exact
    values, so they may be 0.1 off those of the rounded ones.
    """
    check_results("comparison_table", results)
    names = ("method", *differing_fields(results, SETTING))
    columns = [(name, text_cells(run[name] for run in results)) for name in names]
    for share in ("balanced_accuracy", "rarest_third", "accuracy"):
        values = [run[share] for run in results]
        columns.append((_HEADINGS[share], number_cells(values)))
        if len(results) > 1 and share != "accuracy":
            gains = [None if None in (value, values[0]) else value - values[0] for value in values[1:]]
            columns.append(("Δ\npoints", text_cells(["", *map(points, gains)])))
    columns.append(("seconds", number_cells([run["seconds"] for run in results], shown_as=seconds_text, best=min)))
    return rich_table(_grid(_setting(results, SETTING), columns, ". ".join(_clustering_texts(results)), names=len(names)))


def label_table(results: Runs) -> Table:
    """One row per label, however many there are: its classes, its imbalance, and each run's class-balanced accuracy.

    The labels are those of all runs, in order of appearance. Where runs were trained on different counts, each distinct
    number of classes and imbalance is shown, in the order of the runs. The best run of a label is bold.
    """
    check_results("label_table", results)
    rows = []
    for name in first_labels(results):
        of_runs = [run["labels"].get(name) for run in results]
        counts = [class_counts(label) for label in of_runs if label is not None]
        texts = [name, _distinct(str(c.size) for c in counts), _distinct(map(imbalance_text, counts))]
        rows.append(text_cells(texts) + number_cells([label and label["balanced_accuracy"] for label in of_runs]))
    title = _lines("class-balanced accuracy % by label", _setting(results, SETTING))
    return rich_table(Grid(title, ["label", "classes", "imbalance", *_run_headings(results)], rows))


def group_table(results: Runs) -> Table:
    """One row per group of attributes and their mean: the largest imbalance, and each run's class-balanced accuracy.

    For results with "top5" (of a dataset with groups, such as DeepFashion): Table 7. An attribute counts as predicted present
    where its score is among the 5 highest of its group, see `crl_tf.metrics.top_of_group`. The mean is over the attributes of
    all groups, not over the groups. The best run of a row is bold.

    Raises:
        ValueError: if no result has groups.
    """
    check_results("group_table", results)
    tops = [run.get("top5", {"balanced_accuracy": None, "groups": {}}) for run in results]
    rows = []
    for name in dict.fromkeys(name for top in tops for name in top["groups"]):
        of_runs = [top["groups"].get(name) for top in tops]
        ratios = _distinct(ratio_text(group["imbalance"]) for group in of_runs if group is not None)
        rows.append(text_cells([name, ratios]) + number_cells([group and group["balanced_accuracy"] for group in of_runs]))
    if not rows:
        raise ValueError("group_table: no result has 'top5', which is measured where attributes have groups")
    rows.append(text_cells(["mean over attributes", ""]) + number_cells([top["balanced_accuracy"] for top in tops]))
    title = _lines("top-5 class-balanced accuracy % by group", _setting(results, SETTING))
    return rich_table(Grid(title, ["group", "imbalance", *_run_headings(results)], rows))


def methods_table(results: Runs, baseline: str | None = None) -> Table:
    """One row per method over its seeds: mean ± sample standard deviation, seconds, and their ratio to the baseline's.

    The best mean of a column is bold, as it reads at the decimals shown; * marks what differs from the baseline by a paired
    t-test, adjusted for the number of comparisons. Runs that differ in dataset, model or epochs are never averaged: such a field
    splits the rows and becomes a column, and each setting has its own baseline and best. Args and errors as for
    `crl_tf.experiment.report.aggregate.method_rows`.
    """
    return rich_table(methods_grid(results, baseline))


def rules_table(results: Runs) -> Table:
    """Class-balanced accuracy of every method under every decision rule, mean ± sample standard deviation over its seeds.

    The best of the table is bold, the best rule of each method is marked ^. Runs without "rules" have no numbers.

    Raises:
        ValueError: if results are none or incomplete, or none of them was measured under rules.
    """
    return rich_table(rules_grid(results))


def ranking_table(results: Runs) -> Table:
    """How well every method ranks, beside its class-balanced accuracy and the interval of that over the test images.

    Mean ± sample standard deviation over the seeds. The best of a column is bold. Results of older versions have dashes.
    """
    return rich_table(ranking_grid(results))


def methods_grid(results: Runs, baseline: str | None = None) -> Grid:
    """The grid of `methods_table`."""
    base = aggregates(results, baseline, "methods_table")[0].baseline
    rows = method_rows(results, base)
    differing = differing_fields(rows, UNSEEDED)
    settings = [tuple(row[field] for field in differing) for row in rows]
    # Where all have as many, the caption says it, and a terminal of 80 columns has more room for names.
    names = ["method", *differing, *differing_fields(rows, ["seeds"])]
    columns = [(name, text_cells(row[name] for row in rows)) for name in names]
    for share, heading in _HEADINGS.items():
        cells = number_cells(*_means_and_stds(rows, share), settings=settings)
        marks = ["*" if (row[f"{share}_q"] or 1) < SIGNIFICANT and row[share] is not None else "" for row in rows]
        columns.append((heading, [cell._replace(mark=mark) for cell, mark in zip(cells, marks, strict=True)]))
    seconds = number_cells(*_means_and_stds(rows, "seconds"), shown_as=seconds_text, best=min, settings=settings)
    ratios = [1.0 if row["method"] == base else row["seconds_ratio"] for row in rows]
    columns += [("seconds", seconds), ("ratio", text_cells(number_text(ratio, ".2f") for ratio in ratios))]
    return _grid(_setting(results, UNSEEDED), columns, _methods_caption(rows, base), 1 + len(differing))


def rules_grid(results: Runs) -> Grid:
    """The grid of `rules_table`."""
    check_results("rules_table", results)
    rules = rule_names(results)
    if not rules:
        raise ValueError("rules_table: no result has 'rules', the numbers under each decision rule")
    rows = method_rows(results)
    differing = differing_fields(rows, UNSEEDED)
    keys = ("method", *differing)
    names = [f"balanced_accuracy_under_{rule}" for rule in rules]
    means, stds = ([row[f"{name}{kind}"] for row in rows for name in names] for kind in ("", "_std"))
    settings = [tuple(row[field] for field in differing) for row in rows for _ in names]
    cells = number_cells(means, stds, settings=settings)
    grid_rows = []
    for place, row in enumerate(rows):
        of_row = slice(place * len(names), (place + 1) * len(names))
        best_rules = best_places([percent(mean) for mean in means[of_row]])
        marked = [cell._replace(mark="^" * (rule in best_rules)) for rule, cell in enumerate(cells[of_row])]
        grid_rows.append(text_cells(row[key] for key in keys) + marked)
    title = "class-balanced accuracy % by decision rule; their strengths were chosen on validation images"
    seeds = seeds_text([row["seeds"] for row in rows])
    caption = f"{seeds}. Bold: best of the table{' in its setting' if differing else ''}. ^: best rule of a method."
    headings = [*keys, *(rule.replace("_", "\n") for rule in rules)]
    return Grid(_lines(title, _setting(results, UNSEEDED)), headings, grid_rows, caption, len(keys))


def ranking_grid(results: Runs) -> Grid:
    """The grid of `ranking_table`."""
    rows = method_rows(results)
    differing = differing_fields(rows, UNSEEDED)
    settings = [tuple(row[field] for field in differing) for row in rows]
    columns = [(name, text_cells(row[name] for row in rows)) for name in ("method", *differing)]
    accuracy = number_cells(*_means_and_stds(rows, "balanced_accuracy"), settings=settings)
    bounds = [interval_text(row["balanced_accuracy_low"], row["balanced_accuracy_high"]) for row in rows]
    columns += [(_HEADINGS["balanced_accuracy"], accuracy), (_INTERVAL, text_cells(bounds))]
    columns += [(head, number_cells(*_means_and_stds(rows, name), settings=settings)) for name, head in _RANKING.items()]
    title = _lines("ranking, one class against the rest, and how sure the accuracy is", _setting(results, UNSEEDED))
    caption = (
        f"{seeds_text([row['seeds'] for row in rows])}. AP: average precision. rarest: the rarest third of the classes. Interval:"
        " of balanced accuracy over other test images (bootstrap), bounds averaged over the seeds; not over other seeds."
    )
    return _grid(title, columns, caption, 1 + len(differing))


def labels_grid(results: Runs) -> Grid:
    """Class-balanced accuracy by label, mean ± sample standard deviation over the seeds, labels by rising imbalance.

    Labels are the rows; where methods are more than labels, methods are the rows. The best method of a label is bold.
    """
    methods = aggregates(results, where="labels_grid")
    ratios = {label: ratio_text(ratio) for label, ratio in imbalance_by_label(results).items()}
    cells = {}
    for label in ratios:
        means, stds = zip(*(method.mean_and_std("labels", label, "balanced_accuracy") for method in methods), strict=True)
        cells[label] = number_cells(means, stds, settings=[method.key[1:] for method in methods])
    title = _lines("class-balanced accuracy % by label, by rising imbalance", _setting(results, UNSEEDED))
    if len(methods) > len(ratios):
        names = ("method", *methods[0].setting)
        columns = [(name, text_cells(method.key[place] for method in methods)) for place, name in enumerate(names)]
        columns += [(f"{label}\n{ratio}", cells[label]) for label, ratio in ratios.items()]
        return _grid(title, columns, names=len(names))
    rows = [[*text_cells([label, ratio]), *cells[label]] for label, ratio in ratios.items()]
    return Grid(title, ["label", "imbalance", *("\n".join(method.key) for method in methods)], rows)


def method_list(methods: Mapping[str, Any]) -> Table:
    """One row per method: what it sets in a recipe, who proposed it, and its cost against cross-entropy.

    Args:
        methods: name to a row with `sets`, `source` and `cost` (`crl_tf.experiment.methods.METHODS`).
    """
    rows = []
    for name, row in methods.items():
        settings = ", ".join(f"{key} = {'none' if value is None else value}" for key, value in row.sets.items())
        rows.append(text_cells([name, settings, row.source, row.cost]))
    title = "methods, for --method and --compare; several are joined by +"
    return rich_table(Grid(title, ["method", "sets", "source", "training costs"], rows, names=4, copied=True))


def networks_table(facts: Sequence[NetworkFacts]) -> Table:
    """One row per network: its images and labels, its parameters, what the seed does. Classes are of all labels together."""
    rows = []
    for row in facts:
        numbers = [str(row.smallest_side), f"{len(row.num_classes):,}/{sum(row.num_classes):,}", str(row.layers)]
        texts = [row.name, "x".join(map(str, row.image_size)), *numbers, f"{row.parameters.total:,}", ", ".join(row.seed)]
        rows.append(text_cells(texts))
    caption = (
        "min side: of the smallest image. layers: with weights, in the backbone; --freeze counts them. What the seed draws of a"
        " network: with pretrained weights, of the weights only the head's; of the data it decides order and augmentation."
    )
    headings = ["network", "image", "min\nside", "labels/\nclasses", "layers", "parameters", "the seed\ndraws"]
    return rich_table(Grid("networks of width 1, on images and labels as published", headings, rows, caption, copied=True))


def split_table(inspection: Mapping[str, Any]) -> Table:
    """One row per split: its images, what is not annotated, its smallest and its largest class (a row of Table 2, turned)."""
    splits = inspection["splits"]
    binary = "smallest_present" in splits["train"]
    rows = []
    for name, facts in splits.items():
        row = [name, f"{facts['images']:,}", _short_percent(facts["missing"])]
        kinds = ("class", "present") if binary else ("class",)
        rows.append(text_cells([*row, *(f"{facts[f'smallest_{kind}']:,} ~ {facts[f'largest_{kind}']:,}" for kind in kinds)]))
    headings = ["split", "images", "not\nannotated %", "images\nper class", "images per\nattribute present"][: 5 if binary else 4]
    total = f"{sum(facts['images'] for facts in splits.values()):,}"
    rows.append(text_cells(["all", total, *[""] * (len(headings) - 2)]))
    return rich_table(Grid(f"{inspection['dataset']} · splits", headings, rows))


def imbalance_table(inspection: Mapping[str, Any]) -> Table:
    """One row per label, the least imbalanced first, as Table 3 has them: classes, ratio, Omega, alpha and how far CRL reaches.

    "in reach" counts the classes that at least half of the batches hold twice.
    """
    ordered = sorted(inspection["labels"].items(), key=lambda item: item[1]["ratio"] or 0)
    rows = []
    for name, facts in ordered[-NAMED_LABELS:]:
        counts = [c["train"] for c in facts["classes"].values()]
        reached = sum(c["two_in_batch"] >= 0.5 for c in facts["classes"].values())
        numbers = [number_text(facts[key], form) for key, form in (("ratio", ",.2f"), ("omega", ".3f"), ("alpha", ".4f"))]
        texts = [name, f"{reached} of {len(counts)}", f"{min(counts):,}", f"{max(counts):,}", *numbers]
        rows.append(text_cells([*texts, _short_percent(facts["missing"]["train"])]))
    more = len(ordered) > NAMED_LABELS
    caption = f"the {NAMED_LABELS} most imbalanced of {len(ordered):,} labels; inspection.json has all" if more else ""
    batches = f"batches of {inspection['batch_size']}, eta {inspection['eta']:g}"
    headings = ["label", "classes\nin reach", "smallest", "largest", "1:x", "Omega", "alpha", "not an-\nnotated %"]
    return rich_table(Grid(f"{inspection['dataset']} · training images per class, {batches}", headings, rows, caption))


def rarest_table(inspection: Mapping[str, Any]) -> Table:
    """The rarest classes that are trained on, the rarest first: how often CRL can act on them at all, in % of the batches."""
    classes = [
        (f"{label} = {name}", facts)
        for label, of_label in inspection["labels"].items()
        for name, facts in of_label["classes"].items()
        if facts["train"]
    ]
    rows = []
    for name, facts in sorted(classes, key=lambda entry: entry[1]["train"])[:RAREST]:
        counts = [f"{facts[split]:,}" for split in ("train", "validation", "test")]
        shares = ("share", "two_in_batch", "rectified", "rectified_in_pairs")
        rows.append(text_cells([name, *counts, *(_short_percent(facts[key]) for key in shares)]))
    headings = ["label = class", "train", "vali-\ndation", "test", "share\n%", "two in\nbatch %", "rectified\n%", "in pairs\n%"]
    return rich_table(Grid(f"{inspection['dataset']} · rarest classes, batches of {inspection['batch_size']}", headings, rows))


def association_line(inspection: Mapping[str, Any]) -> str | None:
    """The most strongly associated pairs of labels, in a line; None where no pair is."""
    pairs = [f"{a} and {b} {value:.2f}" for a, b, value in inspection["co_occurrence"] if value >= ASSOCIATED][:5]
    return f"associated labels (Cramér's V in the training images): {', '.join(pairs)}" if pairs else None


def _short_percent(share: float) -> str:
    # Two digits that count, however small: a rare class's share is the point.
    return f"{100 * share:.1f}" if share >= 0.001 or share == 0 else f"{100 * share:.2g}"


def _grid(title: str, columns: Sequence[tuple[str, Sequence[Cell]]], caption: str = "", names: int = 1) -> Grid:
    rows = list(zip(*(cells for _, cells in columns), strict=True))
    return Grid(title, [heading for heading, _ in columns], rows, caption, names)


def _lines(*lines: str) -> str:
    return "\n".join(filter(None, lines))


def _setting(results: Runs, fields: Sequence[str]) -> str:
    """The fields that all runs agree on."""
    differing = differing_fields(results, fields)
    return " · ".join(field_text(field, results[0][field]) for field in fields if field not in differing)


def _run_headings(results: Runs) -> list[str]:
    """The method of each run, and what else differs between the runs, in the order of the title."""
    differing = differing_fields(results, SETTING)
    return ["\n".join([str(run["method"]), *(field_text(field, run[field]) for field in differing)]) for run in results]


def _distinct(texts: Iterable[str]) -> str:
    return " | ".join(dict.fromkeys(texts))


def _means_and_stds(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[list[float | None], list[float | None]]:
    return [row[name] for row in rows], [row[f"{name}_std"] for row in rows]


def _clustering_texts(rows: Runs) -> list[str]:
    """For each run or method that clusters, how many of its seconds that took."""
    return [
        f"Of the {seconds_text(row['seconds'])} seconds of {row['method']}, {seconds_text(row['clustering_seconds'])} are"
        " clustering and the search for samples"
        for row in rows
        if row.get("clustering_seconds") is not None
    ]


def _methods_caption(rows: Sequence[Mapping[str, Any]], base: str) -> str:
    """What the numbers and marks are, and how far they can be trusted."""
    seeds = seeds_text([row["seeds"] for row in rows])
    parts = [seeds if seeds == "1 seed" else f"Mean ± sample standard deviation over {seeds}"]
    if len(rows) > 1:
        parts.append("Bold: best mean of a column" + (" in its setting" if len({r["method"] for r in rows}) < len(rows) else ""))
    if any(row["method"] != base for row in rows):
        common = max(row["common_seeds"] for row in rows)
        parts += [
            f"Ratio: of the seconds to {base}'s, mean over common seeds",
            f"*: differs from {base} with q < {SIGNIFICANT}: the p-value of a two-sided paired t-test over common seeds, adjusted"
            f" for all comparisons with {base} in the same column (Benjamini-Hochberg, false discovery rate); differences without"
            " spread are not tested",
            f"With {common} common seeds little can be significant: a difference must be large against its spread"
            if common > 1
            else "With fewer than 2 common seeds there is no test",
        ]
    parts += _clustering_texts(rows)
    decided = {row["method"]: row["rule"] for row in rows if row["rule"] != "argmax"}
    if decided:
        named = ", ".join(method if method == rule else f"{method} ({rule})" for method, rule in decided.items())
        parts.append(f"Decided by the largest logit, but for {named}")
    return ". ".join(parts) + "."
