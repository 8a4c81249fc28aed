"""tools/paper/runs.py and planning.py: runs in processes, resumed after a kill, failures named, budgets apart."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import paper_stub
import pytest
from paper.exhibits import cifar, fashion
from paper.planning import FULL, Cut, Request, Spec, job, jobs
from paper.runs import Clock, execute, groups_of_cores, only_one

STUB = (sys.executable, paper_stub.__file__)
METHODS = ("ce", "class_rel", "focal")


@pytest.fixture
def request_of(tmp_path):
    (tmp_path / "data").mkdir()
    return lambda **more: Request(tmp_path / "out", {"cifar": tmp_path / "data", "fashion": tmp_path / "data"}, (0, 1), **more)


@pytest.fixture
def planned(request_of):
    return jobs(request_of(), [cifar("cifar100_imb_paper", method) for method in METHODS], FULL)


def started(log):
    return Path(log).read_text().splitlines() if Path(log).exists() else []


def test_what_is_missing_runs_and_what_is_finished_does_not(planned, tmp_path, monkeypatch):
    monkeypatch.setenv("PAPER_STUB_LOG", str(tmp_path / "log"))
    lines = []
    failed, seconds = execute(planned[:2], tmp_path / "out", [[0], [0]], command=STUB, show=lines.append, poll=0.02)
    assert not failed and set(seconds) == {one.folder for one in planned[:2]} and len(started(tmp_path / "log")) == 2
    execute(planned, tmp_path / "out", [[0], [0]], command=STUB, poll=0.02)
    assert len(started(tmp_path / "log")) == 6 == len(set(started(tmp_path / "log")))
    assert lines[-1].startswith("[2/2] finished cifar100_imb · cifarnet · ")


def test_a_run_that_fails_is_named_and_the_others_go_on(planned, tmp_path, monkeypatch):
    monkeypatch.setenv("PAPER_STUB_FAILS", "-focal-")
    failed, _ = execute(planned, tmp_path / "out", [[0], [0]], command=STUB, poll=0.02)
    assert [one.finished for one in planned] == [True, True, False] * 2
    assert failed == {one.folder: "Diverged: the loss is not finite" for one in planned if "focal" in one.name}


def test_a_process_that_is_killed_is_a_failure_that_says_so(planned, tmp_path):
    command = (sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    failed, _ = execute(planned[:1], tmp_path / "out", [[0]], command=command, poll=0.02)
    assert list(failed.values()) == ["killed by signal 9 (out of memory?)"]


DRIVER = """
import sys
from pathlib import Path
import paper_stub
from paper.exhibits import cifar
from paper.planning import FULL, Request, jobs
from paper.runs import execute
out = Path(sys.argv[1])
planned = jobs(Request(out, {"cifar": out}, (0, 1)), [cifar("cifar100_imb_paper", m) for m in ("ce", "class_rel", "focal")], FULL)
execute(planned, out, [[0]], command=(sys.executable, paper_stub.__file__), poll=0.02)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_command_takes_its_runs_with_it_and_a_second_one_goes_on(how, tmp_path):
    paths = [str(path) for path in (*map(Path, sys.path),) if path.name in ("cases", "tools")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])}
    environment |= {"PAPER_STUB_LOG": str(tmp_path / "log")}
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]
    first = subprocess.Popen(command, env=environment | {"PAPER_STUB_WAITS": "-class_rel-"})
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("half")):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    first.send_signal(how)
    first.wait(timeout=60)
    assert len(started(tmp_path / "log")) == 2
    while _running(str(tmp_path)):
        assert time.monotonic() < deadline, "a run outlived the command"
        time.sleep(0.05)
    subprocess.run(command, env=environment, check=True, timeout=120)
    after = started(tmp_path / "log")[2:]
    # Of seed 0 class_rel goes on, focal starts, and ce is not run again.
    assert len(after) == 5 and after[0].endswith(" resumed") and "-class_rel-" in after[0]
    assert sum("seed0" in line for line in after) == 2


def _running(text):
    """Whether a process of the stub with this text in its command runs."""
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            commands.append(path.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return any("paper_stub" in command and text in command for command in commands)


def test_the_decision_rule_alone_borrows_the_model_of_cross_entropy(request_of, tmp_path, monkeypatch):
    monkeypatch.setenv("PAPER_STUB_LOG", str(tmp_path / "log"))
    specs = [cifar("cifar100_imb_paper", method) for method in ("threshold_adjustment", "ce")]
    planned = jobs(request_of(), specs, FULL)
    assert [one.borrows for one in planned[:2]] == [planned[1].folder, None]
    execute(planned[:2], tmp_path / "out", [[0], [0]], command=STUB, poll=0.02)
    assert [line.split(" ")[1:] for line in started(tmp_path / "log")] == [[], ["borrows"]]


def test_budgets_seeds_settings_and_data_have_folders_of_their_own(request_of, tmp_path):
    spec = fashion("class_rel")
    (tmp_path / "other").mkdir()
    elsewhere = Request(tmp_path / "out", {"fashion": tmp_path / "other"}, (0, 1))
    cuts = [FULL, Cut(0.1, 0.1), Cut(0.1, 1.0), Cut(0.2, 0.1)]
    folders = [job(request_of(), spec, 0, cut).folder for cut in cuts]
    folders += [job(request_of(), spec, 1, FULL).folder, job(elsewhere, spec, 0, FULL).folder]
    folders += [job(request_of(changes={"train.learning_rate": 0.5}), spec, 0, FULL).folder]
    assert len(set(folders)) == len(folders) and len({folder.parents[1] for folder in folders[:4]}) == 4


def test_the_same_configuration_is_one_run_for_all_exhibits(request_of):
    # kappa 25 and eta 0.01 are the recipe's own.
    specs = [fashion("class_rel"), fashion("class_rel", crl__kappa=25), fashion("class_rel", crl__eta=0.01)]
    assert len(jobs(request_of(), specs, FULL)) == 2
    assert len(jobs(request_of(), [*specs, fashion("class_rel", crl__kappa=1)], FULL)) == 4


def test_changes_leave_what_a_sweep_varies_and_reach_everything_else(request_of):
    asked = request_of(changes={"crl.eta": 0.3, "train.batch_size": 64, "data.image_size": (16, 16)})
    config = asked.config(fashion("class_rel", crl__eta=0.001))
    assert (config.crl.eta, config.train.batch_size, tuple(config.data.image_size)) == (0.001, 64, (16, 16))
    assert asked.config(fashion("class_rel")).crl.eta == 0.3


def test_what_is_left_out_has_a_reason(request_of):
    asked = request_of(networks=("resnet32",))
    assert asked.leaves_out(Spec("celeba", "celeba_paper", "ce")) == "no data: --celeba=DIR"
    assert asked.leaves_out(cifar("cifar100_imb_paper", "ce")) == "--networks leaves out cifarnet"
    assert asked.leaves_out(cifar("cifar100_imb_resnet32_paper", "ce")) is None


def test_the_clock_counts_costs_not_runs():
    clock = Clock([10.0, 10.0, 80.0], workers=2)
    assert clock.seconds_left() is None
    clock.finished(10.0, 30.0)
    # 90 of 100 are left, at 3 s each, by two at a time.
    assert clock.seconds_left() == pytest.approx(135)
    # Half of the long one is done after 60 s: 50 done in 90 s, 50 left.
    assert clock.seconds_left([(80.0, 0.5, 60.0)]) == pytest.approx(45)


def test_two_commands_do_not_share_a_folder(tmp_path):
    with only_one(tmp_path), pytest.raises(ValueError, match="another reproduce"), only_one(tmp_path):
        pass


def test_each_run_at_a_time_has_cores_of_its_own():
    groups = groups_of_cores(2)
    usable = os.sched_getaffinity(0)
    assert len(groups) == 2 and all(set(group) <= usable for group in groups)
    assert len(usable) == 1 or not set(groups[0]) & set(groups[1])
