"""The modes of the command that use a finished run: what they print, write and refuse, and their exit codes."""

import base64
import csv
import re
import signal
import subprocess
import sys

import httpx
import pytest
from commands import command
from rich.console import Console

from crl_tf import commands
from crl_tf.command_flags import conversions
from crl_tf.experiment.measure import SHARES
from crl_tf.files import read_json


@pytest.fixture(scope="module")
def finished(shop, tmp_path_factory):
    """A folder with a run in it that has thresholds, and what the command printed."""
    folder = tmp_path_factory.mktemp("command")
    flags = ["--dataset=attribute_csv", f"--data_dir={shop}", "--model=cifarnet", "--epochs=1", "--batch_size=16"]
    flags += ["--config.data.image_size=(16, 16)", "--threshold=recall:0.5", "--calibrate", "--workdir=run"]
    return folder, command(*flags, cwd=folder)


def test_training_with_thresholds_shows_them(finished):
    folder, (code, out, err) = finished
    assert code == 0, err
    assert "thresholds for recall:0.5, chosen on validation images" in out and "calibration on the test images" in out
    decision = read_json(folder / "run" / "result.json")["decision"]
    assert set(decision) == {"calibration", "temperatures", "goal", "thresholds", *SHARES}


def test_predictions_are_written_and_unreadable_images_change_the_exit_code(finished, shop, tmp_path):
    folder, _ = finished
    (tmp_path / "broken.png").write_bytes(b"no image")
    run = f"--workdir={folder / 'run'}"
    code, out, err = command("--mode=predict", run, f"--input={shop}/1*.png", cwd=tmp_path)
    assert code == 0 and "predictions.csv: 11 of 11 images predicted, 0 unreadable" in out, out + err
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open(newline="")))
    assert len(rows) == 11 and rows[0]["colour"] in ("red", "green", "blue") and "colour_detected" in rows[0]
    code, out, err = command(
        "--mode=predict", run, f"--input={shop}/2.png", "--input=broken.png", "--output=b.jsonl", cwd=tmp_path
    )
    assert code == 3 and "1 of 2 images predicted, 1 unreadable" in out, out + err
    assert "! unreadable: broken.png (not an image" in out and "the decision is made by" in out, out
    code, _, err = command("--mode=predict", run, f"--input={shop}", cwd=tmp_path)
    assert code == 1 and "output must be a new file, or --overwrite given, received 'predictions.csv'" in err
    # The export alone is enough.
    code, out, err = command(
        "--mode=predict", f"--workdir={folder / 'run' / 'export'}", f"--input={shop}/2.png", "--output=c.csv", cwd=tmp_path
    )
    assert code == 0 and (tmp_path / "c.csv").is_file(), err


def test_a_model_of_a_run_loads_with_the_import_alone(finished):
    path = finished[0] / "run" / "model.keras"
    code = f"import crl_tf, keras; print(type(keras.saving.load_model({str(path)!r}).optimizer).__name__)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0 and ran.stdout.split() == ["AdamW"], ran.stderr


def test_an_input_is_not_written_over(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("path\n")
    options = {"scores": False, "features": False, "overwrite": True, "batch_size": 1}
    with pytest.raises(ValueError, match="output must be another file than the input"):
        commands.predict(Console(), tmp_path, [str(table)], tmp_path / "." / "table.csv", **options)
    assert table.read_text() == "path\n"


def test_a_run_is_measured_on_new_data(finished, shop, tmp_path):
    folder, _ = finished
    rows = list(csv.DictReader((shop / "attributes.csv").open(newline="")))[:30]
    with open(tmp_path / "attributes.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "colour"], *([shop / row["path"], row["colour"]] for row in rows)])
    run = f"--workdir={folder / 'run'}"
    code, out, err = command("--mode=evaluate", run, f"--data_dir={tmp_path}", "--allow_outside_root", cwd=tmp_path)
    assert code == 0 and "30 images of" in out and "lack the labels: size" in out + err, out + err
    code, _, err = command("--mode=evaluate", run, "--allow_outside_root", cwd=tmp_path)
    assert code == 1 and "data_dir must be given to evaluate other data" in err


def test_an_export_is_made_again_with_other_thresholds(finished, tmp_path):
    folder, _ = finished
    code, out, err = command("--mode=export", f"--workdir={folder / 'run'}", "--threshold=balanced", cwd=tmp_path)
    assert code == 0 and "thresholds for balanced" in out and "the SavedModel: " in out, out + err
    assert read_json(folder / "run" / "export" / "assets.extra" / "model.json")["decision"]["goal"] == "balanced"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--mode=predict", "--workdir=gone"], "input must be given with --mode=predict"),
        (["--mode=predict", "--input=x.jpg"], "workdir must be given: the folder of the run to predict with"),
        (["--mode=predict", "--workdir=gone", "--input=x.jpg"], "workdir must hold a finished run; gone lacks"),
        (["--mode=predict", "--workdir=gone", "--input=x.jpg", "--epochs=3"], "--epochs has no effect with --mode=predict"),
        (["--mode=export", "--workdir=gone", "--input=x.jpg"], "--input has no effect with --mode=export"),
        (["--mode=export", "--workdir=gone", "--export=tflite"], "export must be none, or some of savedmodel, litert"),
        (["--mode=serve", "--workdir=gone", "--threshold=balanced"], "--threshold has no effect with --mode=serve"),
        (["--mode=evaluate", "--workdir=gone", "--export=onnx"], "--export has no effect with --mode=evaluate"),
        (["--port=1", "--epochs=1"], "--port has no effect with --mode=train"),
        (["--threshold=recall:2", "--epochs=1"], "decision.threshold must be balanced"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(flags, words, tmp_path):
    code, _, err = command(*flags, cwd=tmp_path)
    assert code == 1 and words in err and "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_a_served_run_answers_and_shows_training_images_until_it_is_told_to_stop(finished, shop, tmp_path):
    folder, _ = finished
    flags = ["--mode=serve", f"--workdir={folder / 'run'}", "--port=0", "--name=shop"]
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "crl_tf.main", *flags],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        lines = iter(process.stdout.readline, "")
        address = next(found[1] for line in lines if (found := re.search(r"a page at (http://127\.0\.0\.1:\d+)/", line)))
        with httpx.Client(base_url=address, timeout=60) as client:
            content = {"b64": base64.b64encode((shop / "2.png").read_bytes()).decode()}
            body = {"signature_name": "image_bytes", "instances": [content]}
            (answer,) = client.post("/v1/models/shop:predict", json=body).raise_for_status().json()["predictions"]
            assert answer["colour_name"] in ("red", "green", "blue") and answer["valid"] is True
            assert "<html" in client.get("/").raise_for_status().text
            assert client.get("/api/neighbours/0").raise_for_status().content.startswith(b"\x89PNG")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()


def test_a_run_is_converted_and_a_loss_changes_the_exit_code(finished, tmp_path):
    folder, _ = finished
    code, out, err = command("--mode=export", f"--workdir={folder / 'run'}", "--export=onnx", cwd=tmp_path)
    assert code == 0 and "exports on the test images" in out and "model.onnx" in out, out + err
    assert (folder / "run" / "exports" / "model.onnx").is_file()
    code, _, err = command("--compare=ce,class_rel", "--export=onnx", cwd=tmp_path)
    assert code == 1 and "export must be savedmodel or none for a comparison" in err


def test_exports_are_named_once_and_none_stands_alone():
    assert conversions(["savedmodel"]) == [] and conversions(["onnx", "litert", "litert_int8"]) == [
        "onnx", "litert", "litert_float16", "litert_int8"
    ]  # fmt: skip
    with pytest.raises(ValueError, match="export must be none, or some of"):
        conversions(["none", "onnx"])
