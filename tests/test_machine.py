"""What computes bfloat16 fast here: read from Linux's list of a processor, or asked of TensorFlow for a GPU."""

import pytest
import tensorflow as tf

from crl_tf import machine

CPUINFO = "processor\t: 0\nmodel name\t: Some processor\nflags\t\t: fpu avx512f {}\n\nprocessor\t: 1\nflags\t\t: fpu\n"


@pytest.mark.parametrize(
    ("flags", "fast", "why"),
    [
        ({"avx512f", "avx512_bf16", "amx_bf16"}, True, "the processor has amx_bf16"),
        ({"avx512f", "avx512_bf16"}, True, "the processor has avx512_bf16"),
        ({"avx512f"}, False, "the processor has neither amx_bf16 nor avx512_bf16"),
    ],
)
def test_the_processor_decides_where_there_is_no_gpu(monkeypatch, flags, fast, why):
    monkeypatch.setattr(machine, "gpu_capabilities", lambda: [])
    monkeypatch.setattr(machine, "processor_flags", lambda: frozenset(flags))
    assert machine.bfloat16() == (fast, why)
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    assert not machine.bfloat16().fast and "oneDNN" in machine.bfloat16().why


@pytest.mark.parametrize(
    ("capabilities", "fast", "why"),
    [
        ([(9, 0)], True, "the GPU has compute capability 9.0"),
        ([(9, 0), (7, 5)], False, "the GPU has compute capability 7.5, less than 8.0"),
        ([(0, 0)], False, "the GPU has compute capability 0.0, less than 8.0"),
    ],
)
def test_the_slowest_gpu_decides_whatever_the_processor_has(monkeypatch, capabilities, fast, why):
    monkeypatch.setattr(machine, "gpu_capabilities", lambda: capabilities)
    monkeypatch.setattr(machine, "processor_flags", lambda: frozenset({"amx_bf16"}))
    assert machine.bfloat16() == (fast, why)


def test_a_gpu_is_asked_for_its_capability(monkeypatch):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["first", "second"])
    details = {"first": {"compute_capability": (8, 6)}, "second": {"device_name": "of another maker"}}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", details.__getitem__)
    assert machine.gpu_capabilities() == [(8, 6), (0, 0)]


def test_the_instructions_are_those_that_linux_lists_of_the_first_processor(tmp_path, real_processor_flags):
    (tmp_path / "cpuinfo").write_text(CPUINFO.format("amx_bf16"))
    assert real_processor_flags(tmp_path / "cpuinfo") == {"fpu", "avx512f", "amx_bf16"}
    (tmp_path / "other").write_text("Features\t: fp asimd bf16\n")
    assert real_processor_flags(tmp_path / "other") == real_processor_flags(tmp_path / "missing") == frozenset()
