"""What may be asked, and how it is refused."""

import numpy as np
import pytest
from loremesh_embedding.adapters.bm25 import Bm25Embedder
from loremesh_embedding.adapters.memory import MemoryEmbedder, MemoryReranker
from loremesh_embedding.domain.bm25 import Bm25
from loremesh_embedding.domain.models import Catalogue, Model, Task
from loremesh_embedding.engine import EmbeddingEngine
from loremesh_embedding.errors import ModelNotFound, ModelTaskUnsupported, TextEmpty
from loremesh_kit.errors import InvalidField, ServiceError

pytestmark = pytest.mark.unit

DEFAULTS = {Task.DENSE: "second", Task.SPARSE: "bm25", Task.RERANK: "memory-rerank"}


@pytest.fixture
def engine() -> EmbeddingEngine:
    dense = [MemoryEmbedder(id_="first", dimension=8), MemoryEmbedder(id_="second", dimension=16)]
    sparse, rerankers = [Bm25Embedder(bm25=Bm25())], [MemoryReranker()]
    models = [each.model for group in (dense, sparse, rerankers) for each in group]
    return EmbeddingEngine(
        catalogue=Catalogue(models, defaults=DEFAULTS), dense=dense, sparse=sparse, rerankers=rerankers
    )


def field_of(error: ServiceError) -> str:
    (violation,) = error.violations
    return violation.field


async def test_a_request_that_names_no_model_gets_the_default_and_no_sparse_vectors(engine: EmbeddingEngine):
    embedded = await engine.embed(["a wing"])
    assert embedded.model is not None
    assert embedded.dense is not None
    assert (embedded.model.id, embedded.dense.values.shape) == ("second", (1, 16))
    assert embedded.sparse is None


async def test_none_leaves_dense_vectors_out(engine: EmbeddingEngine):
    embedded = await engine.embed(["a wing"], model="none", sparse_model="bm25")
    assert embedded.dense is None
    assert embedded.sparse is not None
    assert len(embedded.sparse) == 1


async def test_asking_for_no_vectors_at_all_is_refused(engine: EmbeddingEngine):
    with pytest.raises(InvalidField) as refused:
        await engine.embed(["a wing"], model="none")
    assert field_of(refused.value) == "sparse_model"


@pytest.mark.parametrize(("asked", "field"), [({"model": "x"}, "model"), ({"sparse_model": "x"}, "sparse_model")])
async def test_an_unknown_model_is_not_found(engine: EmbeddingEngine, asked: dict[str, str], field: str):
    with pytest.raises(ModelNotFound) as refused:
        await engine.embed(["a wing"], **asked)
    assert refused.value.metadata == {"model": "x"}
    assert field_of(refused.value) == field


async def test_a_model_is_refused_for_what_it_cannot_do(engine: EmbeddingEngine):
    with pytest.raises(ModelTaskUnsupported) as refused:
        await engine.rerank("a wing", ["b"], model="bm25")
    assert refused.value.metadata == {"model": "bm25", "task": "rerank"}


@pytest.mark.parametrize("empty", ["", " \n\t\u3000", "\x00", "\ud800 "])
async def test_an_empty_text_is_named(engine: EmbeddingEngine, empty: str):
    with pytest.raises(TextEmpty) as refused:
        await engine.embed(["a", "b", empty])
    assert field_of(refused.value) == "texts[2]"
    with pytest.raises(TextEmpty) as refused:
        await engine.rerank("a", ["b", empty])
    assert field_of(refused.value) == "documents[1]"
    with pytest.raises(TextEmpty) as refused:
        await engine.rerank(empty, ["b"])
    assert field_of(refused.value) == "query"


async def test_what_cannot_be_stored_is_cleaned_away(engine: EmbeddingEngine):
    dirty, clean = await engine.embed(["wi\x00ng"]), await engine.embed(["wing"])
    assert dirty.dense is not None
    assert clean.dense is not None
    assert np.array_equal(dirty.dense.values, clean.dense.values)


async def test_ranking_is_best_first_ties_in_order_and_cut_at_top_k(engine: EmbeddingEngine):
    _, ranked = await engine.rerank("red wing", ["blue", "red wing", "wing", "red"], top_k=3)
    assert [scored.index for scored in ranked] == [1, 2, 3]


def test_models_are_listed_by_task_the_default_first(engine: EmbeddingEngine):
    assert [model.id for model in engine.catalogue.models()] == ["second", "first", "bm25", "memory-rerank"]


def test_one_id_for_two_models_is_refused():
    model = Model(id="a", task=Task.DENSE, provider="local", dimension=1)
    with pytest.raises(ValueError, match="'a'"):
        Catalogue([model, model], defaults={})


@pytest.mark.parametrize("default", ["missing", "a"])
def test_a_default_that_cannot_do_the_task_is_refused(default: str):
    model = Model(id="a", task=Task.DENSE, provider="local", dimension=1)
    with pytest.raises(ValueError, match=default):
        Catalogue([model], defaults={Task.RERANK: default})
