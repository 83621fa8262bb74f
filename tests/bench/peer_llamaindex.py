"""LlamaIndex's own ingestion pipeline over the same weights: prints documents per second as JSON.

Runs in an environment of its own, which scripts/bench makes: `peer_llamaindex.py MODEL TOKENIZER CORPUS THREADS`.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from pydantic import PrivateAttr
from tokenizers import Tokenizer


class MiniLm(BaseEmbedding):
    """The mesh's own default model, as a LlamaIndex user would wrap it."""

    _session: Any = PrivateAttr()
    _tokenizer: Any = PrivateAttr()

    def __init__(self, model: str, tokenizer: str, threads: int) -> None:
        """`model` and `tokenizer` are paths."""
        super().__init__(model_name="minilm-l6-int8")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._tokenizer = Tokenizer.from_file(tokenizer)
        self._tokenizer.enable_truncation(256)
        self._tokenizer.enable_padding()

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        encodings = self._tokenizer.encode_batch(texts)
        mask = np.array([e.attention_mask for e in encodings], dtype=np.int64)
        feed = {"input_ids": np.array([e.ids for e in encodings], dtype=np.int64), "attention_mask": mask}
        names = {i.name for i in self._session.get_inputs()}
        if "token_type_ids" in names:
            feed["token_type_ids"] = np.zeros_like(mask)
        hidden = self._session.run(None, feed)[0]
        pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        return (pooled / np.linalg.norm(pooled, axis=1, keepdims=True)).tolist()

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def main() -> None:
    """Ingest the corpus and print the rate."""
    model, tokenizer, corpus, threads = sys.argv[1:]
    rows = json.loads(Path(corpus).read_text())
    embedding = MiniLm(model, tokenizer, int(threads))
    counting = Tokenizer.from_file(tokenizer)
    counting.no_truncation()
    counting.no_padding()
    splitter = SentenceSplitter(chunk_size=256, chunk_overlap=20, tokenizer=lambda text: counting.encode(text).ids)
    # As metadata the title is embedded with every chunk, as the mesh does it.
    documents = [Document(text=row["text"], metadata={"title": row["title"]}, doc_id=row["id"]) for row in rows]
    embedding.get_text_embedding("warm up")
    started = time.perf_counter()
    nodes = IngestionPipeline(transformations=[splitter, embedding]).run(documents=documents)
    VectorStoreIndex(nodes, embed_model=embedding)
    seconds = time.perf_counter() - started
    print(json.dumps({"documents_per_second": len(documents) / seconds, "chunks": len(nodes)}))


if __name__ == "__main__":
    main()
