"""One run at a time in a folder: who holds it, and that an end of any kind lets go of it."""

import subprocess
import sys
import time

import pytest

from crl_tf.experiment import run as experiment
from crl_tf.experiment.compare import compare
from crl_tf.experiment.workdir import held


def test_a_folder_is_held_once_and_let_go_of(tmp_path):
    folder = tmp_path / "a" / "run"
    with held(folder):
        with pytest.raises(ValueError, match="run is in use by a run that is not finished"), held(folder):
            pass
        with held(tmp_path / "a" / "other"):  # another folder is free
            pass
        assert folder.is_dir() and not list(folder.iterdir())
    assert not (tmp_path / "a").exists()  # nothing was written: what was made is gone
    with pytest.raises(RuntimeError), held(folder):
        (folder / "kept").touch()
        raise RuntimeError
    with held(folder):
        assert (folder / "kept").is_file()


def test_runs_and_comparisons_refuse_a_folder_in_use_before_they_read_anything(tiny_recipe, tmp_path):
    tiny_recipe.data.dir = str(tmp_path / "nothing")
    with held(tmp_path / "run"):
        for resume in (False, True):
            with pytest.raises(ValueError, match="is in use by a run"):
                experiment.run(tiny_recipe, tmp_path / "run", resume=resume)
            with pytest.raises(ValueError, match="is in use by a run"):
                compare(tiny_recipe, ["ce"], tmp_path / "run", resume=resume)


def test_a_killed_process_lets_go(tmp_path):
    script = (
        "import pathlib, time; from crl_tf.experiment.workdir import held\n"
        f"with held(pathlib.Path({str(tmp_path / 'run')!r})):\n    print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match="is in use"), held(tmp_path / "run"):
        pass
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with held(tmp_path / "run"):
                return
        except ValueError:
            time.sleep(0.05)
    raise AssertionError("the folder is still held")
