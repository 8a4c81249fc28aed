"""tools/reproduce.py: what is asked for is run, and the pages show the numbers of result.json beside the paper's."""

import csv
import json
import pickle
import re
import sys
from functools import partial

import numpy as np
import paper_stub
import pytest
import reproduce
from paper import budget, printed
from paper.exhibits import EXHIBITS
from paper.material import hours
from paper.planning import FULL
from paper.runs import execute
from PIL import Image

STUB = partial(execute, command=(sys.executable, paper_stub.__file__), poll=0.02)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """The three data, tiny, in the layout of --data."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    fashion = folder / "fashion_product"
    fashion.mkdir()
    rows = []
    for i in range(60):
        gender, product = ("Women", "Men")[i % 4 > 0], ("Shoes", "Topwear", "Bags")[0 if i % 6 < 4 else i % 6 - 3]
        pixels = rng.integers(0, 90, (16, 16, 3), np.uint8)
        pixels[..., ("Shoes", "Topwear", "Bags").index(product)] += 150
        Image.fromarray(pixels).save(fashion / f"{i}.png")
        rows.append([f"{i}.png", "train" if i < 36 else "val" if i < 48 else "test", gender, product])
    with open(fashion / "attributes.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "split", "gender", "subCategory"], *rows])
    celeba = folder / "celeba"
    celeba.mkdir()
    names = [f"{i:06}.jpg" for i in range(1, 25)]
    signs = [[1 if i % 2 else -1, 1 if i % 3 else -1, 1 if i % 5 == 0 else -1] for i in range(24)]
    lines = [" ".join([name, *map(str, of)]) for name, of in zip(names, signs, strict=True)]
    (celeba / "list_attr_celeba.txt").write_text("\n".join(["24", "Attractive Male Bald", *lines]) + "\n")
    parts = [f"{name} {0 if i < 16 else 1 if i < 20 else 2}" for i, name in enumerate(names)]
    (celeba / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")
    cifar = folder / "cifar-100-python"
    cifar.mkdir()
    for name, per_class in (("train", 500), ("test", 10)):
        content = {
            "data": np.zeros((100 * per_class, 3072), np.uint8),
            "fine_labels": np.repeat(np.arange(100), per_class).tolist(),
        }
        (cifar / name).write_bytes(pickle.dumps(content))
    (cifar / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"thing{k}" for k in range(100)]}))
    return folder


@pytest.fixture
def stub(monkeypatch):
    """Runs are made by the stub."""
    monkeypatch.setattr(reproduce, "execute", STUB)
    monkeypatch.setattr(budget, "execute", STUB)


def ran(data, out, *flags):
    """The sections of a command, by name, and the text of its page."""
    sections = reproduce.reproduce(reproduce.parser().parse_args([f"--data={data}", f"--out={out}", "--jobs=2", *flags]))
    (page,) = (out / "pages").rglob("report.txt")
    return {one.name: one for one in sections}, page.read_text(encoding="utf-8")


def cells(section, row, place=0):
    table = [part for part in section.parts if hasattr(part, "rows")][place]
    (line,) = (line for line in table.rows if line[0] == row)
    return dict(zip(table.columns, line, strict=True))


def test_the_numbers_that_are_shown_are_those_of_the_results(data, tmp_path, stub):
    sections, text = ran(data, tmp_path / "out", "--table=9", "--seeds=0,1,2", "--networks=cifarnet")
    results = [json.loads(path.read_text()) for path in (tmp_path / "out").rglob("result.json")]
    assert len(results) == 5 * 3
    accuracies = {}
    for one in results:
        accuracies.setdefault((one["dataset"], one["method"]), []).append(100 * one["balanced_accuracy"])
    crl, ce = (np.array(accuracies["cifar100_imb", method]) for method in ("class_rel", "ce"))
    shown = cells(sections["Table 9"], "CifarNet, imbalanced, with CRL")
    assert shown["ours, %"] == f"{crl.mean():.1f} ± {crl.std(ddof=1):.1f}" and shown["seeds"] == "3"
    assert shown["paper, %"] == "36.7" and shown["paper's gain"] == "+2.0" and shown["training"] == "2 min"
    assert shown["our gain"].startswith(f"{crl.mean() - ce.mean():+.1f} ± ")
    assert cells(sections["Table 9"], "ResNet32, imbalanced")["ours, %"] == "–"
    assert shown["ours, %"] in text and "--networks leaves out resnet32" in text and "Nothing is cut" in text


def test_what_is_there_is_shown_and_not_run_again(data, tmp_path, stub, monkeypatch):
    first, _ = ran(data, tmp_path / "out", "--table=12", "--seeds=0")
    monkeypatch.setenv("PAPER_STUB_FAILS", "out")
    again, _ = ran(data, tmp_path / "out", "--table=12", "--seeds=0")
    assert again["Table 12"].parts[0] == first["Table 12"].parts[0] and "Failed" not in " ".join(again["Table 12"].caption)
    more, _ = ran(data, tmp_path / "out", "--table=12", "--seeds=0,1", "--show")
    assert "3 of 6 runs are not finished." in more["Table 12"].caption


def test_a_failed_run_is_named_in_the_caption(data, tmp_path, stub, monkeypatch):
    monkeypatch.setenv("PAPER_STUB_FAILS", "class_rel_all")
    sections, text = ran(data, tmp_path / "out", "--table=12", "--seeds=0")
    caption = " ".join(sections["Table 12"].caption)
    assert "Failed: attribute_csv · mtct · class_rel_all · seed 0: Diverged: the loss is not finite." in caption
    assert (
        cells(sections["Table 12"], "all classes")["ours, %"] == "–" != cells(sections["Table 12"], "minority classes")["ours, %"]
    )
    assert "Diverged" in text


def test_budgets_do_not_mix_and_the_caption_says_what_was_cut(data, tmp_path, stub):
    full, _ = ran(data, tmp_path / "out", "--table=13", "--seeds=0")
    (tmp_path / "out" / "pages").rename(tmp_path / "full")
    sections, _ = ran(data, tmp_path / "out", "--table=13", "--seeds=0", "--budget=2m")
    folders = {path.name for path in (tmp_path / "out" / "runs").iterdir()}
    assert len(folders) == 2 and FULL.name in folders
    epochs = {json.loads(path.read_text())["epochs"] for path in (tmp_path / "out" / "runs").glob("epochs-*/*/*/result.json")}
    caption = " ".join(sections["Table 13"].caption)
    # The stub says 1,000 images, of which the share is left.
    match = re.search(
        r"Budget 2m: attribute_csv: epochs 256 → (\d+), training images 155,467 \(paper\) → 36 \(at hand\) → (\d+)", caption
    )
    assert match and epochs == {int(match[1])} and int(match[1]) < 256 and "The test set is whole." in caption
    assert "epochs 256, training" in " ".join(full["Table 13"].caption)


def test_changed_settings_are_said_and_kept_apart(data, tmp_path, stub):
    ran(data, tmp_path / "out", "--table=13", "--seeds=0")
    (tmp_path / "out" / "pages").rename(tmp_path / "first")
    sections, _ = ran(data, tmp_path / "out", "--table=13", "--seeds=0", "--set=train.epochs=5", "--set=model=deepid2")
    assert "Changed from the paper's settings: train.epochs = 5, model = deepid2." in sections["Table 13"].caption
    assert len(list((tmp_path / "out").rglob("result.json"))) == 8


def test_missing_data_are_said_and_the_rest_is_shown(data, tmp_path, stub, capsys):
    folder = tmp_path / "some"
    folder.mkdir()
    (folder / "fashion_product").symlink_to(data / "fashion_product")
    sections, _ = ran(folder, tmp_path / "out", "--table=10", "--seeds=0")
    assert "left out for want of --celeba=DIR (or --data=DIR): all or part of Table 10" in capsys.readouterr().out
    assert "Left out: no data: --celeba=DIR." in sections["Table 10"].caption
    assert cells(sections["Table 10"], "class level, relative", 0)["ours, %"] == "–"
    assert cells(sections["Table 10"], "class level, relative", 1)["ours, %"] != "–"


def written_at_once(planned, out, groups, **more):
    """In place of `execute`: the stub's files, without a process for each."""
    for one in planned:
        config = one.config.to_dict()
        paper_stub.write_run(one.folder, json.loads(json.dumps(config)), paper_stub.labels_for(config["dataset"]))
    return {}, {}


def test_everything_can_be_shown(data, tmp_path, monkeypatch):
    monkeypatch.setattr(reproduce, "execute", written_at_once)
    sections, text = ran(data, tmp_path / "out", "--all", "--seeds=0,1")
    assert list(sections) == list(EXHIBITS)
    shown = {name for name, one in sections.items() if not any("Not shown" in getattr(part, "words", "") for part in one.parts)}
    # The stub leaves no model.
    assert set(EXHIBITS) - shown <= {"Fig. 2", "Fig. 5", "Fig. 7", "Fig. 9"}, text
    assert "stand in for X-Domain" in sections["Table 5"].title and "stand in for DeepFashion" in sections["Table 7"].title
    bald = cells(sections["Table 3"], "Bald", 1)
    assert bald["1:x, paper"] == "43" and bald["cross-entropy: ours (paper)"].endswith("(93)")
    assert bald["CRL: ours (paper)"].endswith("(?)")
    attractive = [100 * paper_stub.accuracy_of("instance_rel", seed) for seed in (0, 1)]
    assert cells(sections["Table 3"], "Attractive", 1)["CRL: ours (paper)"] == f"{np.mean(attractive):.1f} ± 0.7 (81)"


def test_statistics_come_from_the_lists(data, tmp_path, stub):
    sections, _ = ran(data, tmp_path / "out", "--table=2")
    ours = cells(sections["Table 2"], "CelebA: ours")
    assert (ours["labels"], ours["images"], ours["training images"], ours["test images"]) == ("3", "24", "16", "4")
    # Bald: 0, 5, 10 and 15 of the 16 training images.
    assert ours["training images per class"].startswith("4 to ")
    assert cells(sections["Table 2"], "CelebA: paper")["training images"] == "162,770"
    assert not (tmp_path / "out" / "runs").exists()


def test_complete_lists_stand_beside_some_images(data, tmp_path, stub):
    flags = (f"--celeba_lists={data / 'celeba'}", f"--fashion={data / 'fashion_product'}")
    sections = reproduce.reproduce(reproduce.parser().parse_args([f"--out={tmp_path / 'out'}", "--table=2", *flags]))
    assert cells(sections[0], "CelebA: ours")["images"] == "24" and cells(sections[0], "CIFAR-100: ours")["images"] == "–"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give --table, --figure or --all"),
        (["--table=14"], "table must be one of 2, 3,"),
        (["--figure=3"], "figure must be one of 1, 2,"),
        (["--table=9", "--seeds=0,0"], "seeds must be whole numbers, each once"),
        (["--table=9", "--set=train.epoch=1"], "did you mean 'train.epochs'"),
        (["--table=9", "--set=train.epochs"], "set must be KEY=VALUE"),
        (["--table=9", "--cifar=/nowhere/at/all"], "cifar must be a folder"),
        (["--table=9", "--budget=soon"], "budget must be a time above 0"),
    ],
)
def test_what_is_wrong_is_one_line(flags, message, tmp_path, data):
    with pytest.raises(SystemExit, match=message) as stopped:
        reproduce.main([f"--out={tmp_path}", f"--data={data}", *flags])
    assert "\n" not in str(stopped.value)


def test_the_list_names_every_exhibit(capsys):
    reproduce.main(["--list"])
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == list(EXHIBITS)


def test_printed_numbers_agree_with_what_the_paper_says_of_them():
    """Sums and differences that the text of the paper states."""
    for name, values in printed.TABLE_5.items():
        # The paper's own mean of this row is another.
        assert name == "cost_sensitive" or np.mean(values[:-1]) == pytest.approx(values[-1], abs=0.0101), name
    gains = np.subtract(printed.TABLE_5["crl"], printed.TABLE_5["ce"])
    assert gains[0] == pytest.approx(printed.TABLE_6["crl"][0]) and np.mean(gains[1:9]) == pytest.approx(7.10, abs=0.01)
    for name in ("triplet_knn", "anet", "ce"):
        assert np.mean(list(printed.TABLE_3[name].values())) == pytest.approx(printed.TABLE_3_MEAN[name], abs=0.6), name
    assert printed.TABLE_3_MEAN["crl"] - printed.TABLE_3_MEAN["ce"] == 6
    for name, values in printed.TABLE_7.items():
        assert np.mean(values[:-1]) == pytest.approx(values[-1], abs=0.35), name
    assert [crl - imb for _, imb, crl in list(printed.TABLE_9.values())[:3]] == pytest.approx([2.0, 3.1, 3.2])
    assert hours([60.4 * 3600]) == "60.4 h"


def test_a_table_of_real_runs_from_end_to_end(data, tmp_path):
    """Two runs of a tiny network in processes of their own."""
    tiny = ("model=cifarnet", "network.width=0.1", "train.epochs=2", "train.batch_size=16", "data.image_size=(16, 16)")
    sections, text = ran(data, tmp_path / "out", "--table=7", "--seeds=0", *(f"--set={setting}" for setting in tiny))
    results = {}
    for path in (tmp_path / "out").rglob("result.json"):
        result = json.loads(path.read_text())
        results[result["method"]] = result
        assert (path.parent / "model.keras").is_file() and not (path.parent / "checkpoint").exists()
    assert set(results) == {"ce", "class_rel"}, text
    shown = cells(sections["Table 7"], "gender", 1)
    assert shown["without CRL"] == f"{100 * results['ce']['labels']['gender']['balanced_accuracy']:.1f}"
    assert shown["with CRL"] == f"{100 * results['class_rel']['labels']['gender']['balanced_accuracy']:.1f}"
    assert cells(sections["Table 7"], "ResNet50")["ours, %"] == f"{100 * results['ce']['balanced_accuracy']:.1f}"
