"""Pickles are read without running what they name: whole ones as pickle reads them, all others with one ValueError."""

import io
import pickle
import pickletools
import struct
import subprocess
import sys

import numpy as np
import pytest

from crl_tf.datasets.sources.pickles import read_pickle

CONTENT = {
    "data": np.random.default_rng(0).integers(0, 256, (6, 12), np.uint8),
    "fine_labels": [3, 99, 0, 70_000, -5, 1],
    "names": ["ä", "b"],
    "batch_label": "training batch 1 of 1",
    "none": None,
}


def written(folder, content):
    path = folder / "part"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_whole_pickle_is_read_as_by_pickle(tmp_path, protocol):
    content = read_pickle(written(tmp_path, pickle.dumps(CONTENT, protocol=protocol)))
    np.testing.assert_array_equal(content.pop("data"), CONTENT["data"])
    assert content == {key: value for key, value in CONTENT.items() if key != "data"}


def test_the_real_files_are_read_as_by_pickle(real_data):
    for name in ("test", "meta"):
        path = real_data / "cifar-100-python" / name
        ours = read_pickle(path)
        with path.open("rb") as file:
            theirs = pickle.load(file, encoding="latin1")
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[key], theirs[key]) for key in ours)


class Calls:
    def __init__(self, function, *arguments):
        self._reduced = function, arguments

    def __reduce__(self):
        return self._reduced


def crafted_dtype():
    """A pickle of allowed names alone, whose dtype has a state that says its bytes are pointers to objects."""
    whole = pickle.dumps(np.zeros(2, np.uint8), protocol=2)
    state = pickle.dumps((3, "|", None, None, None, -1, -1, 0x3F), protocol=2)[2:-1]
    start = whole.index(b"K\x03")
    start = whole.rindex(b"(", 0, start)
    end = whole.index(b"b", start)
    return whole[:start] + state + whole[end:]


HOSTILE = {
    "a command": pickle.dumps(Calls(__import__("os").system, "touch hostile"), protocol=2),
    "a function of ours": pickle.dumps(Calls(np.zeros, (10**12,)), protocol=2),
    "a dtype of objects": pickle.dumps(np.array([None, 1], object), protocol=2),
    "a structured dtype": pickle.dumps(np.zeros(2, [("a", "u1")]), protocol=2),
    "floats": pickle.dumps({"data": 1.5}, protocol=2),
    "a set": pickle.dumps({"data": {1, 2}}, protocol=4),
    "protocol 0": pickle.dumps({"data": [1]}, protocol=0),
    "a length beyond the file": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 50) + b"abc.",
    "a memo at 2^31": b"\x80\x02}r\xff\xff\xff\x7fq\x00h\x05.",
    "an array without content": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR.",
    "a shape that the bytes do not fill": pickle.dumps(np.zeros(4, np.uint8), protocol=2).replace(b"K\x04\x85", b"K\x7f\x85"),
    "nothing": b"",
    "no end": pickle.dumps(CONTENT, protocol=2)[:-1],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_everything_else_is_refused(tmp_path, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"part (is no pickle of texts, numbers and arrays|is no whole pickle)"):
        read_pickle(written(tmp_path, HOSTILE[kind]))
    assert not (tmp_path / "hostile").exists()


def test_a_crafted_state_of_a_dtype_is_never_carried_out(tmp_path):
    content = crafted_dtype()
    assert content != pickle.dumps(np.zeros(2, np.uint8), protocol=2)
    values = read_pickle(written(tmp_path, content))
    assert values.dtype == np.uint8 and values.tolist() == [0, 0] and not values.dtype.hasobject


def test_a_text_cannot_be_made_bytes_again_and_again(tmp_path):
    text = "x" * 10_000
    call = b"c_codecs\nencode\nh\x00U\x06latin1\x86R0"
    body = io.BytesIO(b"\x80\x02T" + struct.pack("<i", len(text)) + text.encode() + b"q\x00")
    content = body.getvalue() + call.replace(b"0", b"") * 50 + b"."
    assert sum(op.name == "REDUCE" for op, _, _ in pickletools.genops(content)) == 50
    with pytest.raises(ValueError, match="it makes more bytes than it holds"):
        read_pickle(written(tmp_path, content))


FUZZ = """
import pickle, random, resource, sys
from pathlib import Path
import numpy as np
from crl_tf.datasets.sources.pickles import read_pickle
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
content = {"data": np.arange(60, dtype=np.uint8).reshape(5, 12), "fine_labels": list(range(40)), "names": ["a", "b"]}
path, read = Path(sys.argv[1]), 0
for number in range(3000):
    draw = random.Random(number)
    whole = bytearray(pickle.dumps(content, protocol=draw.choice((2, 3, 4))))
    for _ in range(draw.choice((1, 1, 2, 5))):
        place = draw.randrange(len(whole))
        change = draw.randrange(3)
        if change == 0:
            whole[place] = draw.randrange(256)
        elif change == 1:
            del whole[place : place + draw.randrange(1, 9)]
        else:
            whole[place:place] = bytes(draw.randrange(256) for _ in range(draw.randrange(1, 9)))
    path.write_bytes(whole)
    try:
        read_pickle(path)
        read += 1
    except ValueError:
        pass
# Unlike getrusage, VmHWM does not begin with the memory of the process that started this one.
status = Path("/proc/self/status").read_text()
print(read, next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


def test_damaged_ones_end_in_one_kind_of_error_and_little_memory(tmp_path):
    limit = 8 << 30  # of address space, of which TensorFlow reserves most
    command = [sys.executable, "-c", FUZZ, str(tmp_path / "part"), str(limit)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-2000:]
    read, kilobytes = map(int, ran.stdout.split())
    assert 0 < read < 3000  # some changes leave a pickle
    assert kilobytes < 2 << 20
