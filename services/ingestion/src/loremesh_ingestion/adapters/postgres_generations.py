"""Generations in SQL: until a vector store can have others, the first is the live one and the only one."""

# Of a row of `vector_stores`: the generation that searches see.
LIVE_GENERATION = "1::bigint"

# Of a row of `documents`: the generation it is indexed in.
DOCUMENT_GENERATION = "1::bigint"
