"""The kinds of work ingestion gives to its workers."""

INDEX = "index"
EMBED_BATCH = "embed_batch"
PURGE = "purge"
SYNC_ATTRIBUTES = "sync_attributes"
DELETE = "delete"
BUILD_GENERATION = "build_generation"
DROP_GENERATION = "drop_generation"
DELETE_VECTOR_STORE = "delete_vector_store"
RECONCILE = "reconcile"

# With backoff from one second up to half a minute, about three minutes. Waiting for what is away does not count.
MAX_ATTEMPTS = 12
# What someone has just asked for comes before what an index made anew takes.
REBUILDING = -1
# A document that crashes a fresh parser so often, one time after the other, will do so again.
MAX_CRASHES = 3
