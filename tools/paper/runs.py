"""Runs jobs as processes, several at a time; a run that fails is named, and the others go on. What was stopped resumes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crl_tf.files import read_json, write_json
from paper.planning import Job

ROOT = Path(__file__).parents[2]
CHILD = (sys.executable, "-P", str(Path(__file__).with_name("one_run.py")))
GIB_PER_RUN = 3
"""Memory that a run is taken to need: TensorFlow and the data."""

SHOW_EVERY = 60.0
"""Seconds between two lines of progress."""


def groups_of_cores(jobs: int | None = None) -> list[list[int]]:
    """The cores of each run at a time, as many runs as usable cores and free memory allow; one where there is an NVIDIA GPU.

    Args:
        jobs: how many runs at a time, in place of that.
    """
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    if jobs is None:
        jobs = 1 if Path("/dev/nvidia0").exists() else max(1, min(len(usable), int(_free_gib() // GIB_PER_RUN)))
    return [usable[number % len(usable) :: jobs] for number in range(jobs)]


def _free_gib() -> float:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 2**20
    except (OSError, StopIteration):
        return GIB_PER_RUN


@contextmanager
def only_one(out: Path) -> Iterator[None]:
    """Refuses a second command in the same folder while the first one works."""
    out.mkdir(parents=True, exist_ok=True)
    with open(out / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"out: another reproduce.py works in {out}: wait for it, or pass another --out") from None
        yield


class Clock:
    """How much of all work is done, and how long the rest will take, in the unit of costs until something is measured."""

    def __init__(self, costs: Sequence[float], workers: int) -> None:
        self._total, self._workers, self._done, self._busy = sum(costs), workers, 0.0, 0.0

    def finished(self, cost: float, seconds: float) -> None:
        """One run has ended, after so many seconds."""
        self._done, self._busy = self._done + cost, self._busy + seconds

    def seconds_left(self, running: Sequence[tuple[float, float, float]] = ()) -> float | None:
        """The seconds until the last run has ended; None before anything is known.

        Args:
            running: of each run that runs: its cost, its share done, its seconds so far.
        """
        done = self._done + sum(cost * share for cost, share, _ in running)
        busy = self._busy + sum(seconds for _, share, seconds in running if share > 0)
        return None if not done else max(0.0, self._total - done) * busy / done / self._workers


def execute(
    jobs: Sequence[Job],
    out: Path,
    groups: Sequence[Sequence[int]],
    *,
    costs: Mapping[Path, float] | None = None,
    show: Callable[[str], None] = lambda line: None,
    command: Sequence[str] = CHILD,
    poll: float = 0.2,
) -> tuple[dict[Path, str], dict[Path, float]]:
    """Runs what is not finished yet.

    Args:
        jobs: the first that can start starts first; one that borrows a model waits for that model.
        out: logs/ and state/ are written there.
        groups: the cores of each run at a time.
        costs: by folder, what each takes, in any one unit; by default its epochs.
        show: receives lines of progress.
        command: of the process of a run, before the path of its file.
        poll: seconds between two looks at the processes.
    Returns:
        by folder, why runs failed; and by folder, the seconds of the runs that ended.
    """
    waiting = [job for job in jobs if not job.finished]
    costs = costs or {job.folder: float(job.config.train.epochs) if job.borrows is None else 0.1 for job in waiting}
    clock = Clock([costs[job.folder] for job in waiting], min(len(groups), max(1, len(waiting))))
    failed: dict[Path, str] = {}
    seconds: dict[Path, float] = {}
    running: dict[int, _Process] = {}
    count, shown = len(waiting), time.monotonic()

    def line(text: str) -> None:
        left = clock.seconds_left([(costs[one.job.folder], one.share, one.seconds) for one in running.values()])
        rest = "" if left is None or len(seconds) == count else f" · about {duration(left)} left"
        show(f"[{len(seconds)}/{count}] {text}{rest}")

    try:
        while waiting or running:
            unfinished = {job.folder for job in waiting} | {one.job.folder for one in running.values()}
            for number, cores in enumerate(groups):
                ready = next((job for job in waiting if job.borrows not in unfinished), None)
                if number not in running and ready is not None:
                    waiting.remove(ready)
                    running[number] = _Process(ready, out, cores, command)
                    line(f"started {ready.name}")
            for number, one in list(running.items()):
                if one.ended:
                    del running[number]
                    seconds[one.job.folder] = one.seconds
                    clock.finished(costs[one.job.folder], one.seconds)
                    if (reason := one.failure()) is not None:
                        failed[one.job.folder] = reason
                    line(
                        f"{'FAILED' if reason else 'finished'} {one.job.name} in {duration(one.seconds)}"
                        + f": {reason}" * bool(reason)
                    )
            if time.monotonic() - shown > SHOW_EVERY and running:
                shown = time.monotonic()
                line("running: " + "; ".join(one.place for one in running.values()))
            time.sleep(poll)
    finally:
        for one in running.values():
            one.stop()
    return failed, seconds


class _Process:
    """The process of one job."""

    def __init__(self, job: Job, out: Path, cores: Sequence[int], command: Sequence[str]) -> None:
        self.job, self._started = job, time.monotonic()
        name = "-".join(job.folder.relative_to(out).parts)
        self._state, self._log = out / "state" / f"{name}.json", out / "logs" / f"{name}.log"
        self._state.unlink(missing_ok=True)
        described = out / "state" / f"{name}.job.json"
        # A model to borrow that failed is trained anew.
        borrows = str(job.borrows) if job.borrows is not None and (job.borrows / "result.json").is_file() else None
        content = {"config": job.config.to_dict(), "folder": str(job.folder), "borrows": borrows, "state": str(self._state)}
        write_json(described, content)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        environment = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_FORCE_GPU_ALLOW_GROWTH": "true"} | os.environ
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        with open(self._log, "ab") as log, _on_cores(cores):
            self._process = subprocess.Popen(
                [*command, str(described)], stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment
            )

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    @property
    def share(self) -> float:
        """The share of its epochs that is done."""
        state = self._read()
        return state["epoch"] / state["of"] if state.get("of") else 0.0

    @property
    def place(self) -> str:
        state = self._read()
        return f"{self.job.name}, epoch {state.get('epoch', 0)} of {state.get('of', self.job.config.train.epochs)}"

    def failure(self) -> str | None:
        """Why it failed; None: it did not."""
        self._process.stdin.close()
        code = self._process.returncode
        if code == 0 and self.job.finished:
            return None
        killed = f"killed by signal {-code}" + " (out of memory?)" * (code == -9)
        return self._read().get("error") or (killed if code < 0 else f"ended with code {code}: see {self._log}")

    def stop(self) -> None:
        self._process.stdin.close()
        self._process.terminate()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        try:
            return read_json(self._state)
        except (OSError, ValueError):
            return {}


@contextmanager
def _on_cores(cores: Sequence[int]) -> Iterator[None]:
    """A process that is started meanwhile may use these cores alone: TensorFlow takes as many threads."""
    if not hasattr(os, "sched_setaffinity") or not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def duration(seconds: float) -> str:
    """Seconds in words.

    >>> duration(42.4), duration(252), duration(7500)
    ('42 s', '4 min', '2 h 5 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
