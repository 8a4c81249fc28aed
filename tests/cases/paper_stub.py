"""Stands in for a run in the tests of reproduce.py: a process that writes a result.json and trains nothing.

The environment says what it does: PAPER_STUB_FAILS, a part of the folder's name for which it fails; PAPER_STUB_WAITS, one for
which it writes half of its epochs and then waits until it is killed; PAPER_STUB_LOG, a file that receives a line per process.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path


def accuracy_of(method, seed):
    """The share that the stub reports."""
    return (sum(map(ord, method)) % 50 + 20 + seed) / 100


def label_of(share, classes):
    counts = {name: 1000 // 5**place for place, name in enumerate(classes)}
    shares = {"balanced_accuracy": share, "accuracy": share, "macro_f1": share}
    return shares | {"sensitivity": dict.fromkeys(classes, share), "train_counts": counts}


def result_of(config, labels):
    share = accuracy_of(config["method"], config["seed"])
    setting = {"dataset": config["dataset"], "model": config["model"], "method": config["method"], "seed": config["seed"]}
    setting |= {
        "loss": "ce",
        "epochs": config["train"]["epochs"],
        "seconds": 100.0 + config["seed"],
        "rule": "argmax",
        "rules": {},
    }
    shares = {name: share for name in ("balanced_accuracy", "accuracy", "macro_f1", "rarest_third", "most_frequent_third")}
    return setting | shares | {"labels": {name: label_of(share, classes) for name, classes in labels.items()}}


def write_run(folder, config, labels, images=100):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"recipe": config, "images": {"train": images}}))
    epochs = range(config["train"]["epochs"] if config["train"]["epochs"] < 20 else 3)
    rows = [f"{epoch},{0.1 + images / 1000},{epoch / 20}\n" for epoch in epochs]
    (folder / "history.csv").write_text("epoch,seconds,val_balanced_accuracy\n" + "".join(rows))
    (folder / "result.json").write_text(json.dumps(result_of(config, labels)))


def labels_for(dataset):
    two = ("absent", "present")
    celeba = {"Attractive": two, "Male": two, "Bald": two}
    fashion = {"gender": ("Men", "Women"), "subCategory": ("Shoes", "Bags", "Topwear")}
    return {"celeba": celeba, "attribute_csv": fashion}.get(dataset, {"fine_label": ("apple", "man", "rose")})


def main():
    def end_with_parent():
        while os.read(0, 1024):
            pass
        os._exit(3)

    threading.Thread(target=end_with_parent, daemon=True).start()
    job = json.loads(Path(sys.argv[1]).read_text())
    folder, config = Path(job["folder"]), job["config"]
    resumed = (folder / "half").exists()
    if "PAPER_STUB_LOG" in os.environ:
        with open(os.environ["PAPER_STUB_LOG"], "a") as log:
            log.write(f"{folder.parent.name}/{folder.name}{' resumed' * resumed}{' borrows' * bool(job['borrows'])}\n")
    if os.environ.get("PAPER_STUB_FAILS", "nothing") in str(folder):
        Path(job["state"]).write_text(json.dumps({"error": "Diverged: the loss is not finite"}))
        sys.exit(1)
    if os.environ.get("PAPER_STUB_WAITS", "nothing") in str(folder) and not resumed:
        folder.mkdir(parents=True)
        (folder / "half").touch()
        Path(job["state"]).write_text(json.dumps({"epoch": 1, "of": 2}))
        time.sleep(600)
    write_run(folder, config, labels_for(config["dataset"]), images=round(1000 * config["data"]["train_share"]))


if __name__ == "__main__":
    main()
