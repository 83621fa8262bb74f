"""Cutting a parsed document into chunks: pure, exact to the code point, the same every time."""

from loremesh_ingestion.domain.chunking.chunk import Chunk
from loremesh_ingestion.domain.chunking.chunker import chunk
from loremesh_ingestion.domain.chunking.strategy import ChunkingStrategy, StrategyKind
from loremesh_ingestion.domain.chunking.tokens import TokenCounter

__all__ = ["Chunk", "ChunkingStrategy", "StrategyKind", "TokenCounter", "chunk"]
