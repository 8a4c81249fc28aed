"""The bench of starts: that every process is timed, and its ratio taken within each round."""

import json

import bench_start
import numpy as np


def test_every_start_is_timed_in_turns(tmp_path, monkeypatch, capsys):
    loops = {"import keras": 1, "import keras, again (A/A)": 1, "longer": 10}
    starts = {name: ("-c", f"for i in range({10**6 * many}): pass") for name, many in loops.items()}
    monkeypatch.setattr(bench_start, "STARTS", starts)
    bench_start.main(["--rounds=2", f"--json={tmp_path / 'found.json'}"])
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found["starts"]) == list(starts) and found["rounds"] == 2 and found["machine"]["cores"] >= 1
    base = found["starts"]["import keras"]["processor"]["values"]
    for row in found["starts"].values():
        assert len(row["wall"]["values"]) == 2 and min(row["processor"]["values"]) > 0
        np.testing.assert_allclose(row["ratio"]["values"], np.divide(row["processor"]["values"], base))
    assert found["starts"]["longer"]["ratio"]["median"] > 1
    assert "| `longer` | " in capsys.readouterr().out
