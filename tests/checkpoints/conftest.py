from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Vocabularies are unpacked into a cache of the test's own."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FROMNOISE_CACHE", str(cache))
    return cache
