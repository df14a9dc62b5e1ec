"""A model is the same whoever writes its name: what a token does not read of it is known of each."""

import pytest

from bench.latency_rows import EMBEDDINGS, plain, unread_weights

QWEN, LLAMA = 152064 * 3584, 128256 * 4096


@pytest.mark.parametrize(
    ("names", "weights"),
    [
        (("Qwen2.5 7B", "Qwen 2.5 7B Q3_K_M", "qwen2.5:7b", "Qwen2.5-7B-Instruct"), QWEN),
        (("Llama 3.1 8B", "llama3.1:8b Q4_K_M", "Llama-3.1-8B"), LLAMA),
        (("DeepSeek R1 7B", "deepseek-r1:7b", "DeepSeek-R1 7B"), QWEN),
        (("Qwen2.5 0.5B", "Qwen 2.5 1.5B Q4_K_M", "Llama 3.2 3B", "llama2:70", ""), 0),  # which share them, or nothing
    ],
)
def test_every_way_to_write_a_name_is_the_same_model(names: tuple[str, ...], weights: int) -> None:
    assert {name: unread_weights(name) for name in names} == dict.fromkeys(names, weights)


def test_names_are_written_as_they_are_looked_for() -> None:
    assert [plain(name) for name in EMBEDDINGS] == list(EMBEDDINGS)
    assert not [(a, b) for a in EMBEDDINGS for b in EMBEDDINGS if a != b and b.startswith(a)], "one is meant by each"
