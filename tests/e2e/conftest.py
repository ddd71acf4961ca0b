import pytest


@pytest.fixture(scope="session")
def cache(tmp_path_factory, worker_id):
    """Folder of the warm-started models of this session, shared by its worker processes."""
    base = tmp_path_factory.getbasetemp()
    return (base if worker_id == "master" else base.parent) / "cache"
