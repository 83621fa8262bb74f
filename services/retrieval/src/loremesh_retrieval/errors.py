"""Why retrieval refuses or fails a call.

ServiceError
├── InvalidField                    INVALID_ARGUMENT
│   └── QueryEmpty                                       QUERY_EMPTY
├── Missing                         NOT_FOUND
│   └── VectorStoreNotFound                              VECTOR_STORE_NOT_FOUND
├── DimensionMismatch               FAILED_PRECONDITION  DIMENSION_MISMATCH
├── EmbeddingModelUnavailable       FAILED_PRECONDITION  EMBEDDING_MODEL_UNAVAILABLE
├── GenerationNotFound              NOT_FOUND            GENERATION_NOT_FOUND
└── GenerationChanging              UNAVAILABLE          GENERATION_CHANGING

The rest are the kit's own.
"""

from loremesh_kit.errors import Code, InvalidField, Missing, ServiceError


class QueryEmpty(InvalidField):
    """The query holds nothing to search for."""

    reason = "QUERY_EMPTY"

    def __init__(self) -> None:
        super().__init__("query must not be empty", field="query")


class VectorStoreNotFound(Missing):
    """The caller has no vector store of this id."""

    reason = "VECTOR_STORE_NOT_FOUND"
    what, key, type = "vector store", "vector_store_id", "loremesh.ingestion.v1.VectorStore"


class DimensionMismatch(ServiceError):
    """A vector has another length than the index of its model."""

    code = Code.FAILED_PRECONDITION
    reason = "DIMENSION_MISMATCH"

    def __init__(self, *, model: str, expected: int, actual: int) -> None:
        super().__init__(
            f"Vectors of {model} have {expected} values here, not {actual}.",
            metadata={"model": model, "expected": str(expected), "actual": str(actual)},
        )


class EmbeddingModelUnavailable(ServiceError):
    """The model of the vector store cannot be used: it is not configured, or its provider refuses for good."""

    code = Code.FAILED_PRECONDITION
    reason = "EMBEDDING_MODEL_UNAVAILABLE"

    def __init__(self, model: str) -> None:
        super().__init__(f"The embedding model {model!r} cannot be used now.", metadata={"model": model})


class GenerationNotFound(ServiceError):
    """The vector store has no such generation."""

    code = Code.NOT_FOUND
    reason = "GENERATION_NOT_FOUND"

    def __init__(self, vector_store_id: str, generation: int) -> None:
        super().__init__(
            f"Vector store {vector_store_id!r} has no generation {generation}.",
            metadata={"vector_store_id": vector_store_id, "generation": str(generation)},
        )


class GenerationChanging(ServiceError):
    """The live generation changed under every try of a search."""

    code = Code.UNAVAILABLE
    reason = "GENERATION_CHANGING"

    def __init__(self) -> None:
        super().__init__("The vector store is being switched to another generation; try again.", retry_after=0.5)
