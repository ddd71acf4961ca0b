import pytest


@pytest.fixture(scope="session")
def cache(tmp_path_factory, worker_id):
    """Where warm-started models of this session lie, shared by its worker processes."""
    base = tmp_path_factory.getbasetemp()
    return (base if worker_id == "master" else base.parent) / "cache"
