"""Tables of results, of methods and of networks: for the terminal, and as grids for Markdown."""

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
    majority_votes,
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

MAJORITY = "majority vote"
"""The row of a model that gives every image the most frequent class, for each label."""

SIGNIFICANT = 0.05
"""Below this adjusted p-value a difference to the baseline is marked."""

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
    barred = [not run.get("is_result", True) for run in results]
    columns = [(name, _marked(text_cells(run[name] for run in results), barred)) for name in names[:1]]
    columns += [(name, text_cells(run[name] for run in results)) for name in names[1:]]
    votes, shares = majority_votes(results), ("balanced_accuracy", "rarest_third", "accuracy")
    for share in shares:
        values = [run[share] for run in results]
        columns.append((_HEADINGS[share], number_cells(values, barred=barred)))
        if len(results) > 1 and share != "accuracy":
            gains = [None if None in (value, values[0]) else value - values[0] for value in values[1:]]
            columns.append(("Δ\npoints", text_cells(["", *map(points, gains)])))
    columns.append(("seconds", number_cells([run["seconds"] for run in results], shown_as=seconds_text, best=min, barred=barred)))
    caption = ". ".join(_clustering_texts(results) + _no_result_texts(results))
    grid = _grid(_setting(results, SETTING), columns, caption, names=len(names))
    return rich_table(_with_majority(grid, {_HEADINGS[share]: votes[share] for share in shares} if votes else {}))


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

    In brackets the mean accuracy: what a gain for rare classes costs the frequent ones.

    The best of the table is bold. The rule of each method that is best on the validation images is marked ^: to choose it by
    the numbers shown would be to choose on the test set. Runs without "rules" have no numbers.

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
    barred = [not row["is_result"] for row in rows]
    # Where all have as many, the caption says it, and a terminal of 80 columns has more room for names.
    names = [*differing, *differing_fields(rows, ["seeds"])]
    columns = [("method", _marked(text_cells(row["method"] for row in rows), barred))]
    columns += [(name, text_cells(row[name] for row in rows)) for name in names]
    for share, heading in _HEADINGS.items():
        cells = number_cells(*_means_and_stds(rows, share), settings=settings, barred=barred)
        marks = ["*" if (row[f"{share}_q"] or 1) < SIGNIFICANT and row[share] is not None else "" for row in rows]
        columns.append((heading, [cell._replace(mark=mark) for cell, mark in zip(cells, marks, strict=True)]))
    seconds = number_cells(*_means_and_stds(rows, "seconds"), shown_as=seconds_text, best=min, settings=settings, barred=barred)
    ratios = [1.0 if row["method"] == base else row["seconds_ratio"] for row in rows]
    columns += [("seconds", seconds), ("ratio", text_cells(number_text(ratio, ".2f") for ratio in ratios))]
    caption = " ".join([_methods_caption(rows, base), *_no_result_texts(results)])
    grid, votes = _grid(_setting(results, UNSEEDED), columns, caption, 1 + len(differing)), majority_votes(results)
    return _with_majority(grid, {heading: votes[share] for share, heading in _HEADINGS.items()} if votes else {})


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
    barred = [not row["is_result"] for row in rows for _ in names]
    cells = number_cells(means, stds, settings=settings, barred=barred)
    accuracies = [row[f"accuracy_under_{rule}"] for row in rows for rule in rules]
    cells = [
        cell if accuracy is None else cell._replace(text=f"{cell.text} ({percent(accuracy)})")
        for cell, accuracy in zip(cells, accuracies, strict=True)
    ]
    grid_rows = []
    for place, row in enumerate(rows):
        of_row = slice(place * len(names), (place + 1) * len(names))
        measured = [
            row[f"validation_under_{rule}"] if row[name] is not None else None for rule, name in zip(rules, names, strict=True)
        ]
        best_rules = best_places([percent(mean) for mean in measured])
        marked = [cell._replace(mark="^" * (rule in best_rules)) for rule, cell in enumerate(cells[of_row])]
        named = _marked(text_cells([row["method"]]), barred[of_row][:1]) + text_cells(row[key] for key in differing)
        grid_rows.append(named + marked)
    votes = majority_votes(results)
    if votes:
        vote = f"{percent(votes['balanced_accuracy'])} ({percent(votes['accuracy'])})"
        grid_rows.append(text_cells([MAJORITY, *[""] * len(differing), vote, *[""] * (len(rules) - 1)]))
    title = "class-balanced accuracy % (accuracy %) by decision rule; strengths were chosen on validation images"
    seeds = seeds_text([row["seeds"] for row in rows])
    setting = " in its setting" if differing else ""
    caption = f"{seeds}. Bold: best of the table{setting}. ^: the rule of a method that is best on the validation images."
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


def _grid(title: str, columns: Sequence[tuple[str, Sequence[Cell]]], caption: str = "", names: int = 1) -> Grid:
    rows = list(zip(*(cells for _, cells in columns), strict=True))
    return Grid(title, [heading for heading, _ in columns], rows, caption, names)


def _marked(cells: Sequence[Cell], barred: Sequence[bool]) -> list[Cell]:
    return [cell._replace(mark="†" * out) for cell, out in zip(cells, barred, strict=True)]


def _no_result_texts(results: Runs) -> list[str]:
    """For each run that is no result, why."""
    return [
        f"† {field_text('method', run['method'])}, seed {run['seed']}: {' '.join(run['complaints'])}"
        for run in results
        if not run.get("is_result", True)
    ]


def _with_majority(grid: Grid, by_heading: Mapping[str, float | None]) -> Grid:
    """A grid with a last row for majority votes, never bold; the grid as it is where they are not known."""
    if not by_heading:
        return grid
    cells = [percent(by_heading[heading]) if heading in by_heading else "" for heading in grid.headings[1:]]
    return grid._replace(rows=[*grid.rows, text_cells([MAJORITY, *cells])])


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
