"""How long a comparison takes is said before its first method ends; what cannot be had is refused before data are read."""

import keras
import pytest

from crl_tf.experiment import auto as search
from crl_tf.experiment import forecast
from crl_tf.experiment.assemble import assemble
from crl_tf.experiment.compare import compare
from crl_tf.experiment.config import override
from crl_tf.experiment.run import run
from crl_tf.progress import SILENT


class Epochs(keras.callbacks.CallbackList):
    """The callbacks of a progress, led through a training whose epochs take so many seconds."""

    def through(self, seconds, monkeypatch):
        now = 100.0
        monkeypatch.setattr(forecast.time, "monotonic", lambda: now)
        self.set_params({"epochs": len(seconds)})
        self.on_train_begin()
        for epoch, length in enumerate(seconds):
            now += length
            self.on_epoch_end(epoch)


def test_the_second_epoch_of_the_first_run_says_how_long_all_take(monkeypatch, log):
    clock = forecast.Clock(3)
    assert clock.next_line("ce") == "[1/3] ce"
    Epochs(clock.watched(SILENT).callbacks()).through([90, 60, 60, 60, 60], monkeypatch)
    # 90 + 4 * 60 = 330 s a run, 990 s for three: 16.5 minutes, of which Python's round makes 16.
    assert log.messages == ["about 16 min for all 3 runs, if each takes as long as this one"]


def test_later_runs_and_a_single_one_have_no_such_line():
    assert forecast.Clock(1).watched(SILENT) is SILENT
    clock = forecast.Clock(2)
    clock.next_line("ce")
    assert clock.watched(SILENT) is not SILENT
    assert "left for all" in clock.next_line("class_rel")
    assert clock.watched(SILENT) is SILENT


def test_a_comparison_says_it(tiny_recipe, tmp_path, log):
    compare(tiny_recipe, ["ce", "class_rel"], tmp_path / "both", export=False)
    assert sum("for all 2 runs, if each takes as long as this one" in line for line in log.messages) == 1


@pytest.mark.parametrize("start", ["run", "compare", "auto"])
def test_pretrained_weights_that_do_not_fit_are_refused_before_the_data_are_read(start, tiny_recipe, tmp_path):
    weights = tmp_path / "weights.h5"
    weights.write_text("no weights")
    recipe = override(tiny_recipe, {"network.pretrained": str(weights), "data.dir": str(tmp_path / "not-there")})
    begin = {
        "run": lambda: run(recipe, tmp_path / "run"),
        "compare": lambda: compare(recipe, ["ce", "class_rel"], tmp_path / "run"),
        "auto": lambda: search.auto(recipe, tmp_path / "run"),
    }
    with pytest.raises(ValueError, match=r"weights\.h5 is no file of weights"):
        begin[start]()
    assert not (tmp_path / "run").exists()
    # Without them, it is the data that are missing.
    with pytest.raises(FileNotFoundError, match="not-there"):
        assemble(override(recipe, {"network.pretrained": None})).load()
