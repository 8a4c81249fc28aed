"""--compare=auto: who is tried, what goes on, what a stop leaves, when the test images are read, and what is exported."""

import json
import shutil

import pytest
from commands import command

from crl_tf.callbacks import Diverged
from crl_tf.datasets.resampling import MeaninglessForData
from crl_tf.experiment import auto as searching
from crl_tf.experiment import candidates as choosing
from crl_tf.experiment.auto import auto
from crl_tf.experiment.candidates import PROMISE, candidates, with_rule
from crl_tf.experiment.data import Data
from crl_tf.experiment.methods import METHODS
from crl_tf.experiment.report import auto_sentences
from crl_tf.experiment.run import evaluate
from crl_tf.files import read_json

SHARES = ("balanced_accuracy", "rarest_third", "most_frequent_third")


@pytest.fixture
def quick(tiny_recipe):
    tiny_recipe.train.epochs = 1
    tiny_recipe.network.width = 0.25
    return tiny_recipe


@pytest.fixture
def few(monkeypatch):
    """Only these methods are tried, in this order."""

    def only(*names):
        monkeypatch.setattr(choosing, "PROMISE", names)
        rows = ("ce", *names, "threshold_adjustment", "logit_adjustment")
        monkeypatch.setattr(choosing, "METHODS", {name: METHODS[name] for name in rows})

    return only


class Trainings:
    """Trainings that take no time: a clock that is set by hand, and scores by method.

    A training of n epochs takes 7 + 4 n seconds, times `slow` but for the timing. `quality`: class-balanced accuracy by method.
    `stop_at`: the call that is killed.
    """

    def __init__(self, monkeypatch, quality, diverging=(), slow=1.0):
        self.now, self.calls, self.measured, self.stop_at = 100.0, [], [], None
        self.quality, self.diverging, self.slow = quality, diverging, slow
        monkeypatch.setattr(searching, "train_and_score", self.train)
        monkeypatch.setattr(searching, "run_parts", self.measure)
        monkeypatch.setattr(searching, "difference_on_validation", lambda better, other: [0.01, -0.02, 0.04])
        monkeypatch.setattr(searching, "compared", self.compared)

    def clock(self):
        return self.now

    def train(self, config, method, epochs, folder, data, progress, clock):
        self._count()
        seconds = (7 + 4 * epochs) * (self.slow if folder.name != "timing" else 1.0)
        self.now += seconds
        for callback in progress.callbacks():
            callback.on_train_batch_end(0, {})
        self.calls.append((folder.parent.name if folder.name != "timing" else "timing", method, epochs))
        if method in self.diverging:
            raise Diverged("the loss became nan in epoch 1")
        shares = dict.fromkeys(SHARES, self.quality.get(method, 0.1))
        return {"rule": "logit_adjustment", **shares, "measuring": 1.0, "total": seconds, "epoch": 4.0}

    def measure(self, parts, folder, *, resume, export, data, trained, progress):
        self._count()
        self.now += 2
        self.measured.append((folder.name, export, trained.parent.name))
        return {"method": parts.names["method"], "rule": parts.rule} | dict.fromkeys(SHARES, 0.6)

    def compared(self, results, folders, reference):
        above = {share: [0.0512, 0.039, 0.064] for share in SHARES}
        return [
            {"name": result["method"], "rule": result["rule"]}
            | {share: result[share] for share in SHARES}
            | {"above_reference": None if place == reference else above, "above_plain": above}
            for place, result in enumerate(results)
        ]

    def _count(self):
        if len(self.calls) + len(self.measured) == self.stop_at:
            raise KeyboardInterrupt


QUALITY = {"ce": 0.5, "class_rel": 0.7, "focal": 0.6, "logit_adjusted": 0.65, "class_dis": 0.55}


def test_halving_keeps_the_better_half_and_cross_entropy(quick, few, tmp_path, monkeypatch, log):
    few("focal", "class_rel", "class_dis", "logit_adjusted", "cost_sensitive")
    quick.train.epochs = 12
    trainings = Trainings(monkeypatch, QUALITY, diverging=["cost_sensitive"])
    # Of 5 challengers to 6 epochs: 6 * 15 + 4 * 19 + 3 * 31 = 259 s. The timing takes 15 s, the test images are forecast at
    # 3 * 1 s * (1 + 12 / 12) + 15 s = 21 s: 0.9 * 328 - 36 = 259.2 s are left for trainings.
    content = auto(quick, tmp_path / "run", budget=328, clock=trainings.clock)
    first = [("rung1", name, 2) for name in ("ce", "focal", "class_rel", "class_dis", "logit_adjusted", "cost_sensitive")]
    assert trainings.calls[:7] == [("timing", "ce", 2), *first]
    assert trainings.calls[7:11] == [("rung2", name, 3) for name in ("ce", "class_rel", "logit_adjusted", "focal")]
    assert trainings.calls[11:] == [("rung3", name, 6) for name in ("ce", "class_rel", "logit_adjusted")]
    assert content["rungs"][0]["dropped"] == {"cost_sensitive": "the loss became nan in epoch 1"}
    assert content["rungs"][0]["cut"] == {"kept": "focal", "dropped": "class_dis", "difference": [0.01, -0.02, 0.04]}
    # The best on validation images first; only it is exported; cross-entropy is there although it was the last.
    names = ["class_rel+logit_adjustment", "logit_adjusted+logit_adjustment", "logit_adjustment"]
    assert trainings.measured == [(name, name == names[0], "rung3") for name in names]
    assert content["seconds"] == 15 + 6 * 15 + 4 * 19 + 3 * 31 + 3 * 2 <= 328
    assert json.loads(json.dumps(content)) == read_json(tmp_path / "run/auto.json")
    assert "\n[rung 2 · 3 of 4] logit_adjusted · 3 epochs · 3m5s left" in log.messages  # 328 - 15 - 90 - 2 * 19 = 185
    assert "plan: rung 1: 6 x 2 epochs; rung 2: 4 x 3 epochs; rung 3: 3 x 6 epochs" in log.text
    report = (tmp_path / "run/report.md").read_text()
    assert "Use class_rel+logit_adjustment: class-balanced accuracy 60.0 % on 12 test images" in report
    assert "5.1 \\[3.9, 6.4\\] points above cross-entropy with logit_adjustment and" in report
    assert "1.0 \\[-2.0, 4.0\\] points ahead of logit_adjusted, which may be chance" in report
    assert "In 2 of 2 rungs the best that went out (class_dis, focal) was within the noise" in report
    assert "cost_sensitive" in report and "the loss became nan in epoch 1" in report
    # The command shows a finished search again, and trains nothing.
    code, out, err = command("--resume", "--workdir=run", cwd=tmp_path)
    assert code == 0, err
    said = " ".join(out.split())
    assert "Use class_rel+logit_adjustment: class-balanced accuracy 60.0 % on 12 test images" in said
    assert "--compare=logit_adjustment,class_rel+logit_adjustment --seeds=0,1,2" in said
    assert "rung 1: 2 epochs, rung 2: 3 epochs, rung 3: 6 epochs" in said
    for flag, complaint in [
        ("--budget=6m", "budget: 5m28s there, 6m now"),
        ("--seeds=0,1", "seeds must not be given with --compare=auto"),
    ]:
        code, _, err = command("--resume", "--workdir=run", flag, cwd=tmp_path)
        assert code != 0 and complaint in err and "Traceback" not in err, err


def test_a_stop_at_any_moment_is_continued_without_repeating_anything(quick, few, tmp_path, monkeypatch):
    few("focal", "class_rel", "class_dis")
    monkeypatch.setattr(searching, "write_auto_report", lambda content, folder: None)
    quick.train.epochs = 4
    whole = Trainings(monkeypatch, QUALITY)
    expected = auto(quick, tmp_path / "whole", budget=10_000, clock=whole.clock)
    total = len(whole.calls) + len(whole.measured)
    assert total == 1 + 4 + 3 + 3
    for moment in range(total):
        trainings = Trainings(monkeypatch, QUALITY)
        trainings.stop_at = moment
        folder = tmp_path / f"stopped{moment}"
        with pytest.raises(KeyboardInterrupt):
            auto(quick, folder, budget=10_000, clock=trainings.clock)
        assert not read_json(folder / "auto.json")["finished"]
        with pytest.raises(ValueError, match="is not finished: --resume continues it"):
            evaluate(folder)
        trainings.stop_at = None
        trainings.now += 1_000_000  # a pause costs nothing
        content = auto(quick, folder, resume=True, clock=trainings.clock)
        # The folder of a finished run answers by itself, so a finalist may be asked for again.
        assert trainings.calls == whole.calls
        assert list(dict.fromkeys(trainings.measured)) == whole.measured
        assert {key for key in expected if content[key] != expected[key]} <= {"seconds", "recipe"}  # a list for a tuple
    again = Trainings(monkeypatch, QUALITY)
    assert auto(quick, folder, resume=True, budget=10_000, named=[], clock=again.clock) == read_json(folder / "auto.json")
    assert not again.calls and not again.measured


def test_other_settings_are_refused_on_resume(quick, few, tmp_path, monkeypatch):
    few("focal")
    trainings = Trainings(monkeypatch, QUALITY)
    auto(quick, tmp_path / "run", budget=300, clock=trainings.clock)
    for given, complaint in [
        ({"budget": 600}, "budget: 5m there, 10m now"),
        ({"named": ["focal"]}, r"compare: \[\] there, \['focal'\] now"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            auto(quick, tmp_path / "run", resume=True, **given)
    quick.train.epochs = 9
    with pytest.raises(ValueError, match=r"train\.epochs: 1 there, 9 now"):
        auto(quick, tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match="is not empty: pass --resume"):
        auto(quick, tmp_path / "run", budget=300)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").write_text("mine")
    with pytest.raises(ValueError, match="holds no search of --compare=auto"):
        auto(quick, tmp_path / "other", resume=True)


def test_a_search_goes_on_with_its_own_data_only(quick, few, tmp_path, monkeypatch, shop):
    few("focal")
    shutil.copytree(shop, tmp_path / "shop")
    quick.data.dir = str(tmp_path / "shop")
    trainings = Trainings(monkeypatch, QUALITY)
    trainings.stop_at = 2
    with pytest.raises(KeyboardInterrupt):
        auto(quick, tmp_path / "run", budget=300, clock=trainings.clock)
    trainings.stop_at = None
    table = tmp_path / "shop" / "attributes.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(ValueError, match=r"test had 12 images and has 11. Scores on other rows cannot be compared: begin anew"):
        auto(quick, tmp_path / "run", resume=True, clock=trainings.clock)
    table.write_text("\n".join(lines) + "\n")
    assert auto(quick, tmp_path / "run", resume=True, clock=trainings.clock)["finished"]


def test_a_small_budget_starts_the_most_promising_and_says_which_were_not_tried(quick, tmp_path, monkeypatch, log):
    trainings = Trainings(monkeypatch, QUALITY)
    # 15 s of timing and 21 s for the test images leave 0.9 * 102 - 36 = 55.8 s: five trainings of 11 s.
    content = auto(quick, tmp_path / "run", budget=102, clock=trainings.clock)
    assert content["rungs"][0]["methods"] == ["ce", *PROMISE[:4]]
    assert len(content["rungs"]) == 1
    assert not {"focal", "lmle", "over_sampling", "instance_rel"} - set(content["not_tried"])
    assert content["not_tried"]["focal"] == "the budget is too small"
    assert content["not_tried"]["lmle"] == "it has a training of its own"
    assert any(message.startswith("not tried: ") and "focal" in message for message in log.messages)
    # 15 + 21 + 22 = 58 s are 0.9 of 64.4 s.
    with pytest.raises(ValueError, match=r"budget must be about 1m4s or more for these data and this network, received 1m"):
        auto(quick, tmp_path / "none", budget=60, clock=trainings.clock)
    # The timing alone takes more than half of it, and is stopped there.
    with pytest.raises(ValueError, match=r"budget must be longer for these data and this network, received 20s"):
        auto(quick, tmp_path / "less", budget=20, clock=trainings.clock)


def test_trainings_that_are_slower_than_forecast_end_the_search_early(quick, few, tmp_path, monkeypatch):
    few("focal", "class_rel", "class_dis", "logit_adjusted")
    quick.train.epochs = 12
    trainings = Trainings(monkeypatch, QUALITY, slow=3.0)
    # The plan is 5 trainings of 19 s, then 3 of 31 s. They take 57 s, and only 3 of them fit into 260 - 36 = 224 s.
    content = auto(quick, tmp_path / "run", budget=260, clock=trainings.clock)
    assert len(content["rungs"]) == 1
    assert content["rungs"][0]["dropped"] == dict.fromkeys(["class_dis", "logit_adjusted"], "no time was left for it")
    assert list(content["finalists"]) == ["class_rel", "focal", "ce"]
    assert content["seconds"] <= 260


def test_cross_entropy_itself_must_not_diverge(quick, few, tmp_path, monkeypatch):
    few("focal")
    trainings = Trainings(monkeypatch, QUALITY, diverging=["ce"])
    with pytest.raises(Diverged):
        auto(quick, tmp_path / "run", budget=300, clock=trainings.clock)


def test_all_others_may_diverge(quick, few, tmp_path, monkeypatch):
    few("focal", "class_rel", "class_dis")
    trainings = Trainings(monkeypatch, QUALITY, diverging=["focal", "class_rel", "class_dis"])
    content = auto(quick, tmp_path / "run", budget=300, clock=trainings.clock)
    assert content["finalists"] == {"ce": "logit_adjustment"}
    sentences = auto_sentences(content, tmp_path / "run")
    assert sentences[0].startswith(
        "Use logit_adjustment: class-balanced accuracy 60.0 % on 12 test images, 5.1 [3.9, 6.4] points"
    )
    assert "No other method was better than cross-entropy on the validation images." in sentences


def test_candidates_come_from_the_table(quick, monkeypatch):
    data = quick_data(quick)
    found, left_out = candidates(quick, [], data)
    assert list(found)[: len(PROMISE)] == list(PROMISE)
    own = {"lmle", "triplet_knn", "hog_knn"}
    assert {name for name, reason in left_out.items() if reason == "it has a training of its own"} == own
    # Rules are no methods of their own, as every model is measured under all of them; cross-entropy is always there; rows of
    # settings alone are tried where they are joined.
    rules, settings = {"threshold_adjustment", "logit_adjustment"}, {"gated", "per_anchor", "logit_adjusted_base"}
    assert set(METHODS) - set(found) - set(left_out) == {"ce", *rules, *settings}
    assert settings <= {row for name in found for row in name.split("+")}
    monkeypatch.setitem(METHODS, "class_rel_rho_20", METHODS["class_rel_rho_10"]._replace(settings={"crl.rho": 0.2}))
    assert "class_rel_rho_20" in candidates(quick, [], data)[0]
    named, left_out = candidates(quick, ["triplet_knn", "over_sampling+focal", "ce"], data)
    assert list(named)[:3] == ["triplet_knn", "focal+over_sampling", PROMISE[0]]
    assert "triplet_knn" not in left_out and "lmle" in left_out
    quick.crl.scope = "all"  # what is the same as another method with this configuration is left out
    assert "class_rel_all" in candidates(quick, [], data)[1]


def quick_data(recipe):
    from crl_tf.experiment.assemble import assemble

    return assemble(recipe).load()


def test_a_name_that_cannot_be_tried_is_refused_before_anything_is_read(quick, tmp_path):
    quick.data.dir = "nowhere"
    for name, complaint in [
        ("logit_adjustment", "auto measures every method under every decision rule: name 'logit_adjustment' without its rule"),
        ("smote", "method must be one of"),
    ]:
        with pytest.raises(ValueError, match=complaint):
            auto(quick, tmp_path / "run", budget=100, named=[name])
    assert not (tmp_path / "run").exists()


def test_long_epochs_are_left_out_unless_they_are_named(quick, few, monkeypatch):
    few("over_sampling", "focal")
    monkeypatch.setattr(choosing, "SLOWEST", 1.5)
    data = quick_data(quick)
    assert 1.5 < choosing.images_factor(candidates(quick, ["over_sampling"], data)[0]["over_sampling"], data) < 4
    found, left_out = candidates(quick, [], data)
    assert list(found) == ["focal"] and "times as long" in left_out["over_sampling"]


def test_a_named_method_without_a_meaning_is_an_error(quick, few, monkeypatch):
    few("focal", "down_sampling")
    data = quick_data(quick)

    def refused(*_, **__):
        raise MeaninglessForData("a class of one image")

    from crl_tf.experiment import assemble as assembling

    monkeypatch.setattr(assembling, "resample", refused)
    assert candidates(quick, [], data)[1] == {
        "balanced_softmax": choosing.LEFT_OUT["balanced_softmax"],
        "down_sampling": "down_sampling: a class of one image",
    }
    with pytest.raises(MeaninglessForData):
        candidates(quick, ["down_sampling"], data)


def test_names_with_a_rule():
    assert with_rule("ce", "argmax") == "ce"
    assert with_rule("ce", "threshold_adjustment") == "threshold_adjustment"
    assert with_rule("focal+over_sampling", "logit_adjustment") == "focal+over_sampling+logit_adjustment"


def test_a_real_search_reads_no_test_image_before_the_end_and_exports_only_the_winner(quick, few, tmp_path, monkeypatch):
    """Real trainings, of one epoch. The first look at the test images is a crash, which --resume continues."""
    few("class_rel")
    batches = Data.batches

    def forbidden(self, split, **options):
        if split == "test":
            raise KeyboardInterrupt
        return batches(self, split, **options)

    folder = tmp_path / "run"
    monkeypatch.setattr("crl_tf.experiment.halving.LONGEST", 1)
    monkeypatch.setattr(Data, "batches", forbidden)
    with pytest.raises(KeyboardInterrupt):
        auto(quick, folder, budget=100_000)
    content = read_json(folder / "auto.json")
    # Everything is decided by then.
    scores = content["rungs"][-1]["scores"]
    assert set(scores) == {"ce", "class_rel"} == set(content["finalists"])
    assert all({"intervals", "rarest_third", "most_frequent_third"} <= set(score) for score in scores.values())
    best = max(scores, key=lambda name: (scores[name]["balanced_accuracy"], scores[name]["rarest_third"]))
    assert scores[best]["balanced_accuracy"] == scores[next(iter(content["finalists"]))]["balanced_accuracy"]
    trained = {path: path.stat().st_mtime_ns for path in folder.glob("rung*/*/model.keras")}
    assert len(trained) == 2 and not list(folder.rglob("checkpoint"))
    monkeypatch.setattr(Data, "batches", batches)
    content = auto(quick, folder, resume=True)
    assert {path: path.stat().st_mtime_ns for path in folder.glob("rung*/*/model.keras")} == trained
    winner = content["final"][0]["name"]
    assert list(folder.rglob("export")) == [folder / "final" / winner / "export"]
    results = [json.loads((folder / "final" / one["name"] / "result.json").read_text()) for one in content["final"]]
    for one, result in zip(content["final"], results, strict=True):
        assert (one["name"], one["rule"]) == (result["method"], result["rule"])
        assert one["balanced_accuracy"] == result["rules"][one["rule"]]["balanced_accuracy"]
    reference = next(result for result, one in zip(results, content["final"], strict=True) if one["above_reference"] is None)
    for one in content["final"]:
        if one["above_reference"] is not None:
            difference, low, high = one["above_reference"]["balanced_accuracy"]
            assert difference == pytest.approx(one["balanced_accuracy"] - reference["balanced_accuracy"])
            assert low <= difference <= high
        if one["above_plain"] is not None:
            plain = reference["rules"]["argmax"]["rarest_third"]
            assert one["above_plain"]["rarest_third"][0] == pytest.approx(one["rarest_third"] - plain)
    again = evaluate(folder)
    assert [result["method"] for result in again] == [one["name"] for one in content["final"]]
    assert [result["balanced_accuracy"] for result in again] == [one["balanced_accuracy"] for one in content["final"]]
