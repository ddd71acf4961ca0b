import pytest


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Where warm-started models of this session lie."""
    return tmp_path_factory.mktemp("cache")
