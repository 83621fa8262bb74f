"""Generations in SQL: until a vector store can have others, the first is the live one and the only one."""

# Of a row of `vector_stores`: the generation that searches see.
LIVE_GENERATION = "1::bigint"

# Of a row of `documents`: the id by which others know it, the index and the object store among them.
DOCUMENT_ID = "documents.id"

# Of a row of `documents`: the generation it is indexed in.
DOCUMENT_GENERATION = "1::bigint"

# Of a row of `documents`: the generations and models whose index may hold chunks of it, as JSON pairs.
INDEX_PLACES = f"""coalesce(
    (SELECT jsonb_agg(DISTINCT jsonb_build_array({DOCUMENT_GENERATION}, embedding_model)) FROM document_versions
     WHERE document_versions.document_id = documents.id),
    '[]'
)"""  # noqa: S608 - made of constants

# The generations of the vector store %(id)s with their models; none when it is not there.
PLACES_OF_STORE = f"""
SELECT {LIVE_GENERATION} AS generation, embedding_model FROM vector_stores WHERE id = %(id)s AND NOT deleting
"""  # noqa: S608
