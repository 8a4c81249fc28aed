"""The precision that the processor decides: it is said, recorded, and kept by whatever goes on from there."""

import json

import keras
import pytest

from crl_tf import machine
from crl_tf.experiment import compare as comparing
from crl_tf.experiment import run as experiment
from crl_tf.experiment.assemble import assemble
from crl_tf.experiment.config import base_config, from_json, load_recipe, override
from crl_tf.experiment.precision import settled
from crl_tf.files import read_json, write_json


@pytest.fixture
def processor(monkeypatch):
    """Changes the processor: `processor("amx_bf16")` has these instructions alone."""

    def change(*flags):
        monkeypatch.setattr(machine, "gpu_capabilities", lambda: [])
        monkeypatch.setattr(machine, "processor_flags", lambda: frozenset(flags))

    return change


def recorded(folder, name="config.json"):
    return read_json(folder / name)["recipe"]["train"]["precision"]


@pytest.mark.parametrize(("flags", "chosen"), [(["amx_bf16"], "mixed_bfloat16"), (["avx512f"], "float32")])
def test_auto_is_the_default_and_the_processor_decides(processor, log, flags, chosen):
    processor(*flags)
    assert base_config().train.precision == "auto"
    parts = assemble(base_config())
    assert parts.precision == parts.recipe["train"]["precision"] == chosen
    assert f"precision: {chosen}, as auto chose: the processor has" in log.text
    network = parts.build_network(image_size=(32, 32), num_classes=[2], regions=None)
    assert network.get_layer("backbone").layers[1].dtype_policy.name == chosen


def test_depthwise_convolutions_keep_float32_on_a_processor(processor, monkeypatch, log):
    processor("amx_bf16")
    config = override(base_config(), {"model": "keras:MobileNetV3Small"})
    assert settled(config).train.precision == "float32" and "depthwise" in log.text
    monkeypatch.setattr(machine, "gpu_capabilities", lambda: [(8, 0)])
    assert settled(config).train.precision == "mixed_bfloat16"


def test_what_is_said_is_not_left_to_the_processor(processor, log):
    processor("amx_bf16")
    for precision in ("float32", "mixed_float16"):
        config = override(base_config(), {"train.precision": precision})
        assert settled(config) is config and assemble(config).precision == precision
    assert "precision" not in log.text


def test_a_run_goes_on_in_its_precision_on_another_processor(tiny_recipe, tmp_path, processor, log):
    processor("amx_bf16")
    tiny_recipe.train.epochs = 1
    experiment.run(tiny_recipe, tmp_path / "run", export=False)
    assert recorded(tmp_path / "run") == "mixed_bfloat16"
    assert read_json(tmp_path / "run" / "config.json")["bfloat16"] == "the processor has amx_bf16"
    processor()
    tiny_recipe.train.epochs = 2
    log.clear()
    experiment.run(tiny_recipe, tmp_path / "run", resume=True, export=False)
    assert "precision: mixed_bfloat16" in log.text and "was started with it" in log.text
    assert recorded(tmp_path / "run") == "mixed_bfloat16"
    assert keras.saving.load_model(tmp_path / "run" / "model.keras").dtype_policy.name == "mixed_bfloat16"
    # The same run again, by its config.json, and its measurement.
    assert load_recipe(str(tmp_path / "run" / "config.json")).train.precision == "mixed_bfloat16"
    assert experiment.evaluate(tmp_path / "run")[0]["balanced_accuracy"] == pytest.approx(
        read_json(tmp_path / "run" / "result.json")["balanced_accuracy"]
    )


def test_a_comparison_goes_on_in_its_precision_on_another_processor(tiny_recipe, tmp_path, processor):
    processor("amx_bf16")
    tiny_recipe.train.epochs = 1
    comparing.compare(tiny_recipe, ["ce"], tmp_path / "both", export=False)
    processor()
    comparing.compare(tiny_recipe, ["ce", "focal"], tmp_path / "both", resume=True, export=False)
    folders = [tmp_path / "both" / "ce", tmp_path / "both" / "focal"]
    assert [recorded(folder) for folder in folders] == ["mixed_bfloat16"] * 2
    assert recorded(tmp_path / "both", "comparison.json") == "mixed_bfloat16"


def test_what_was_written_before_the_setting_means_float32(processor, tmp_path):
    processor("amx_bf16")
    written = json.loads(json.dumps(base_config().to_dict()))
    del written["train"]["precision"]
    write_json(tmp_path / "config.json", {"recipe": written})
    assert from_json(written).train.precision == load_recipe(str(tmp_path / "config.json")).train.precision == "float32"
