"""What the environment says."""

import pytest
from loremesh_embedding.settings import EmbeddingSettings, RemoteModel
from pydantic import ValidationError

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "COHERE_API_KEY", "COHERE_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def test_without_keys_only_local_models_are_offered():
    settings = EmbeddingSettings()
    assert settings.offered_openai_models() == settings.offered_cohere_models() == ()
    assert settings.offered_cohere_rerank_models() == ()


def test_a_key_offers_the_providers_own_models(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("COHERE_API_KEY", "k")
    settings = EmbeddingSettings()
    assert RemoteModel("text-embedding-3-small", 1536, 8191) in settings.offered_openai_models()
    assert settings.offered_cohere_models()
    assert settings.offered_cohere_rerank_models()


def test_another_endpoint_offers_what_is_named_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    assert EmbeddingSettings().offered_openai_models() == ()
    monkeypatch.setenv("EMBEDDING_OPENAI_MODELS", "nomic-embed-text:v1.5:768, bge-m3:1024/8192")
    assert EmbeddingSettings().offered_openai_models() == (
        RemoteModel("nomic-embed-text:v1.5", 768, 0),
        RemoteModel("bge-m3", 1024, 8192),
    )


@pytest.mark.parametrize("models", ["text-embedding-3-small", "a:0", "a:b", ":3"])
def test_a_model_without_its_dimension_is_refused(monkeypatch: pytest.MonkeyPatch, models: str):
    monkeypatch.setenv("EMBEDDING_OPENAI_MODELS", models)
    with pytest.raises(ValidationError, match="id:dimension"):
        EmbeddingSettings()


def test_keys_are_not_printed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    assert "canary" not in repr(EmbeddingSettings())


def test_a_language_without_a_stemmer_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EMBEDDING_BM25_LANGUAGE", "klingon")
    with pytest.raises(ValidationError, match="english"):
        EmbeddingSettings()
