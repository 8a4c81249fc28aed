"""tools/performance_tables.py: results are kept part by part, and docs/performance.md holds the tables that they say."""

import json
from pathlib import Path

import benchmark_tables
import documents
import performance_tables
import pytest
from performance_tables import PARTS


def spread(median):
    return {"median": median, "q1": 0.9 * median, "q3": 1.1 * median}


def facts(command="python tools/bench_small.py --rounds=7"):
    machine = {"cpu": "a CPU", "cores": 2, "threads": 2, "tensorflow": "2.21.0", "torch": None}
    return {"command": command, "date": "2026-01-02", "seconds": 480.0, "machine": machine}


def row(name, median, **more):
    return {"name": name, **spread(median), "note": "", "by_round": {}, "iterations": 1, "unit": "s", **more}


def small(median=0.001):
    first = row("sparse cross-entropy", median, ratio=spread(1.0))
    again, ours = (row(name, median, ratio=spread(ratio)) for name, ratio in (("again", 1.01), ("class_rel", 1.5)))
    cases = {"fit, 16 units, batch 32": [first, again, ours], "first step, 16 units, batch 32": [first, ours]}
    return {**facts(), "clock": "wall", "cases": cases}


def test_every_part_has_its_tool_its_tables_and_its_place_in_the_document():
    assert list(PARTS) == list(benchmark_tables.TABLES)
    page = performance_tables.PAGE.read_text(encoding="utf-8")
    for name, part in PARTS.items():
        assert Path(performance_tables.__file__).with_name(part.tool).is_file()
        assert documents.between_markers(page, f"performance-{name}", "new") != page


def test_the_document_holds_what_was_measured():
    """Whoever measures again writes the tables again: python tools/performance_tables.py."""
    results = json.loads(performance_tables.RESULTS.read_text(encoding="utf-8"))
    assert set(results) <= set(PARTS)
    assert not documents.differing(performance_tables.contents(results), performance_tables.DOCUMENTS)


def test_small_models_have_a_table_for_each_kind_with_the_machine_and_the_command():
    (text,) = performance_tables.contents({"small": small()}).values()
    lines = text.splitlines()
    assert lines[0] == (
        "a CPU, 2 cores, threads 2, tensorflow 2.21.0; 2026-01-02, 8 minutes: `python tools/bench_small.py --rounds=7`"
    )
    assert "|  | sparse cross-entropy, ms | again | class_rel |" in lines
    assert "| 16 units, batch 32 | 1.00 (0.90 to 1.10) | 1.01 (0.91 to 1.11) | 1.50 (1.35 to 1.65) |" in lines
    assert "| 16 units, batch 32 | 1.00 (0.90 to 1.10) | 1.50 (1.35 to 1.65) |" in lines


def test_losses_are_shown_with_their_share_of_a_step_and_what_was_not_measured_is_empty():
    items = [row("celeba/step/cross_entropy", 0.2), row("celeba/loss/class_relative", 0.003)]
    items.append(row("celeba/memory/class_relative", 2e6, unit="B"))
    ratios = [
        {"name": "class_relative over a training step, less cross-entropy", **spread(1.5), "form": "%", "bar": None, "met": None},
        {"name": "class_relative over a training step", **spread(1.7), "form": "%", "bar": 1.0, "met": False},
    ]
    result = {**facts(), "settings": ["celeba"], "items": items, "ratios": ratios}
    (text,) = performance_tables.contents({"loss": result}).values()
    ms, share, memory = "3.00 (2.70 to 3.30)", "1.50 (1.35 to 1.65)", "2.00 (1.80 to 2.20)"
    assert f"| `class_rel` | {ms} | {share} |  |  |  |  | {memory} |" in text.splitlines()
    assert "| class_relative over a training step | 1.70 (1.53 to 1.87) | % | at most 1 |" in text.splitlines()
    assert "a DeepID2 step takes 200 (180 to 220) ms" in text
    listing = benchmark_tables.loss_listing(result)[-1].markdown()
    assert "| class_relative over a training step | 1.70 (1.53 to 1.87) | % | at most 1 | NOT MET |" in listing


@pytest.fixture
def page(tmp_path, monkeypatch):
    page = tmp_path / "performance.md"
    page.write_text("".join(f"<!-- performance-{name} -->\nold {name}\n<!-- /performance-{name} -->\n" for name in PARTS))
    monkeypatch.setattr(performance_tables, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(performance_tables, "DOCUMENTS", dict.fromkeys(performance_tables.DOCUMENTS, page))
    return page


def test_a_part_is_measured_kept_and_written_and_the_others_stay(page, monkeypatch, capsys):
    run = []
    monkeypatch.setattr(performance_tables, "measured", lambda part: run.append(part.tool) or small(0.001 * len(run)))
    performance_tables.main(["--only=small"])
    assert run == ["bench_small.py"] and "measuring small, about" in capsys.readouterr().out
    assert "old loss" in page.read_text() and "old small" not in page.read_text()
    performance_tables.main(["--tables"])
    performance_tables.main(["--check"])
    assert len(run) == 1 and set(json.loads(performance_tables.RESULTS.read_text())) == {"small"}
    performance_tables.RESULTS.write_text(json.dumps({"small": small(0.5)}))
    with pytest.raises(SystemExit, match=r"differ from results\.json"):
        performance_tables.main(["--check"])


def test_what_was_measured_is_kept_when_the_next_part_fails(page, monkeypatch):
    def fails_second(part):
        if part.tool != "bench_small.py":
            raise RuntimeError("no memory")
        return small()

    monkeypatch.setattr(performance_tables, "measured", fails_second)
    with pytest.raises(RuntimeError):
        performance_tables.main(["--only=small,training"])
    assert set(json.loads(performance_tables.RESULTS.read_text())) == {"small"}


def test_a_benchmark_is_run_with_its_flags_and_its_numbers_are_read(tmp_path, monkeypatch):
    (tmp_path / "bench_fake.py").write_text(
        "import json, sys\nfrom pathlib import Path\n"
        "file = sys.argv[-1].removeprefix('--json=')\nPath(file).write_text(json.dumps({'flags': sys.argv[1:-1]}))"
    )
    monkeypatch.setattr(performance_tables, "__file__", str(tmp_path / "performance_tables.py"))
    part = performance_tables.Part("bench_fake.py", ("--rounds=7", "--only=a|b$"), 1)
    assert performance_tables.measured(part) == {"flags": ["--rounds=7", "--only=a|b$"]}


def test_an_unknown_part_is_refused(capsys):
    with pytest.raises(SystemExit):
        performance_tables.main(["--only=small,nothing"])
    assert "--only must name some of loss,operations,small,training" in capsys.readouterr().err
