"""tools/paper/budget.py: a budget cuts every run by one factor, as far as it must, and is kept."""

import shutil
import sys

import paper_stub
import pytest
from ml_collections import ConfigDict
from paper import budget as budgets
from paper.budget import LEAST, Speed, Timed, calibration_config, fitting_cut, planned_cut, seconds_of
from paper.exhibits import cifar
from paper.planning import FULL, Cut, Request, job
from paper.runs import execute

from crl_tf.experiment.config import load_recipe, override


def total(timed, cut, workers):
    """By hand: starting, then epochs of validation and images."""
    seconds = 0.0
    for speed, epochs, images in timed:
        cut_epochs = max(1, round(epochs * cut.epochs)) if epochs else 0
        seconds += speed.once + cut_epochs * (speed.per_epoch + speed.per_image * images * cut.images)
    return seconds / workers


TIMED = [Timed(Speed(10, 1, 0.001), 200, 8000), Timed(Speed(20, 0.5, 0.01), 921, 9000), Timed(Speed(5, 0, 0), 0, 8000)]


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("images_too", [True, False])
def test_the_cut_fills_the_budget_and_does_not_exceed_it(workers, images_too):
    for seconds in (900, 3600, 20_000):
        cut = fitting_cut(TIMED, seconds, workers, images_too=images_too)
        assert total(TIMED, cut, workers) <= seconds
        larger = min(1.0, cut.epochs * 1.02)
        assert total(TIMED, Cut(larger, larger if images_too else 1.0), workers) > seconds
        assert cut.images == (cut.epochs if images_too else 1.0)


def test_a_budget_that_suffices_cuts_nothing():
    assert fitting_cut(TIMED, total(TIMED, FULL, 1) + 1, 1) == FULL


def test_a_budget_that_cannot_do_says_what_can():
    with pytest.raises(ValueError, match=r"budget must be .* or more here for 3 runs, received 20 s"):
        fitting_cut(TIMED, 20, 1)
    assert fitting_cut(TIMED, total(TIMED, Cut(LEAST, LEAST), 1) + 0.01, 1).epochs >= LEAST


@pytest.mark.parametrize("text", ["2", "h", "0h", "-1h", "2 weeks"])
def test_a_time_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match="budget must be a time above 0"):
        seconds_of(text)


def test_a_cut_changes_epochs_and_images_and_nothing_else_that_is_trained():
    config = load_recipe("celeba_paper")
    cut = Cut(0.0153, 0.0577).applied(config)
    assert cut.train.epochs == 14 and cut.data.train_share == 0.0577  # 921 * 0.0153 = 14.1
    back = override(cut, {"train.epochs": 921, "data.train_share": 1.0})
    back = override(back, {f"embedding.{key}": config.embedding[key] for key in ("pretraining_epochs", "cluster_every")})
    assert back.to_dict() == config.to_dict()
    assert FULL.applied(config) is config


def test_runs_of_one_network_share_a_calibration_unless_their_steps_differ():
    base = load_recipe("cifar100_imb_paper")
    same = [calibration_config(override(base, {"method": method})).method for method in ("ce", "class_abs", "cost_sensitive")]
    own = [
        calibration_config(override(base, {"method": method})).method
        for method in ("over_sampling", "lmle", "hog_knn", "class_rel_unmined")
    ]
    assert same == ["class_rel"] * 3 and own == ["over_sampling", "lmle", "hog_knn", "class_rel_unmined"]


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Two runs whose calibration the stub makes: 0.1 s per epoch and 1 ms per image, of 1,000 images."""
    monkeypatch.setattr(budgets, "Sizes", lambda: lambda config: 1000)
    monkeypatch.setattr(
        budgets,
        "execute",
        lambda planned, out, groups, **more: execute(
            planned, out, groups, command=(sys.executable, paper_stub.__file__), poll=0.02
        ),
    )
    (tmp_path / "data").mkdir()
    request = Request(tmp_path / "out", {"cifar": tmp_path / "data"}, (0,))
    return request, [cifar("cifar100_imb_paper", method) for method in ("ce", "class_rel")]


def test_a_budget_is_measured_once_and_kept(asked):
    request, specs = asked
    # 200 epochs of 0.1 + 1 s would take 220 s a run.
    cut, costs = planned_cut(request, specs, "table-9", "3m", [[0]])
    assert 0.5 < cut.epochs < 0.95 and cut.epochs == cut.images
    expected = round(200 * cut.epochs) * (0.1 + cut.images)
    once = [costs[job(request, spec, 0, cut).folder] - expected for spec in specs]
    assert all(0 <= seconds < 20 for seconds in once)
    speed = next((request.out / "calibration").glob("*.json"))
    # A slower machine later: the same request keeps its cut, or its runs would not fit together.
    content = budgets.read_json(speed)
    budgets.write_json(speed, {**content, "per_image": 50 * content["per_image"]})
    assert planned_cut(request, specs, "table-9", "3m", [[0]])[0] == cut
    assert planned_cut(request, specs, "table-9", "4m", [[0]])[0] != cut


def test_what_is_only_shown_runs_nothing(asked, monkeypatch):
    request, specs = asked
    with pytest.raises(ValueError, match="budget 3m was not planned for table-9"):
        planned_cut(request, specs, "table-9", "3m", [[0]], run=False)
    cut, _ = planned_cut(request, specs, "table-9", "3m", [[0]])
    shutil.rmtree(request.out / "calibration")
    monkeypatch.setattr(budgets, "execute", None)
    # On another number of cores, too.
    assert planned_cut(request, specs, "table-9", "3m", [[0], [1]], run=False) == (cut, {})


def test_a_calibration_that_was_stopped_is_made_again(asked):
    request, specs = asked
    first = planned_cut(request, specs, "table-9", "3m", [[0]])[0]
    shutil.rmtree(request.out / "calibration")
    half = request.out / "calibration" / "left" / "2"
    half.mkdir(parents=True)
    shutil.rmtree(request.out / "plans")
    again = planned_cut(request, specs, "table-9", "3m", [[0]])[0]
    assert again.epochs == pytest.approx(first.epochs, rel=0.2)


def test_a_size_is_read_once(monkeypatch):
    read = []

    def load(name, settings, **more):
        read.append(name)
        return ConfigDict({"splits": {"train": [0] * 7}})

    monkeypatch.setattr(budgets, "load_source", load)
    sizes, config = budgets.Sizes(), load_recipe("cifar100_imb_paper")
    assert [sizes(config), sizes(override(config, {"seed": 5})), sizes(override(config, {"data.gamma": 0.5}))] == [7, 7, 7]
    assert len(read) == 2
    assert sizes(override(config, {"data.train_share": 0.4})) == 3  # of 7


def test_a_share_of_images_that_is_asked_for_is_cut_further():
    config = override(load_recipe("celeba_paper"), {"data.train_share": 0.5})
    assert Cut(0.1, 0.2).applied(config).data.train_share == pytest.approx(0.1)
