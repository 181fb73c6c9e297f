"""Facts from llama.cpp's log."""

from __future__ import annotations

from corral_server.runner.llama.log import buffer_sizes, capture, failure_reason, log_callback

MIB = 1024 * 1024


def test_sizes_are_summed_by_kind_of_memory() -> None:
    lines = [
        (2, "load_tensors:   CPU_Mapped model buffer size =    92.10 MiB\n"),
        (2, "llama_kv_cache:      CUDA0 KV buffer "),
        (5, "size =  1440.00 MiB\n"),
        (2, "llama_context:        CPU  output buffer size =     0.50 MiB\n"),
        (2, "sched_reserve:        CPU compute buffer size =     2.50 MiB\n"),
        (2, "sched_reserve: graph nodes = 937\n"),
    ]
    assert buffer_sizes(lines) == {"CPU_Mapped": int(92.1 * MIB), "CUDA0": 1440 * MIB, "CPU": 3 * MIB}


def test_the_reason_is_the_first_error() -> None:
    lines = [(2, "loading\n"), (4, "gguf_init: the file is broken\n"), (4, "llama_model_load: failed to load model\n")]
    assert failure_reason(lines) == "the file is broken"


def test_without_an_error_the_last_line_is_the_reason() -> None:
    assert failure_reason([(2, "one\n"), (3, "abort: two\n")]) == "two"
    assert failure_reason([]) == "llama.cpp gave no reason"


def test_only_lines_of_the_block_are_captured() -> None:
    with capture() as lines:
        log_callback(4, b"caf\xc3\xa9 \xff", None)
    log_callback(2, b"later", None)
    assert lines == [(4, "café \ufffd")]
