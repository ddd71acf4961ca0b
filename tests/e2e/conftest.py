import shutil

import pytest
import runs
from filelock import FileLock


@pytest.fixture(scope="session")
def cache(tmp_path_factory, worker_id):
    """Folder of the warm-started models of this session, shared by its worker processes."""
    base = tmp_path_factory.getbasetemp()
    return (base if worker_id == "master" else base.parent) / "cache"


@pytest.fixture(scope="session")
def masa_run(cache):
    """A finished run of `runs.SHORT`; the worker that needs it first makes it for all."""
    run = cache / "short"
    cache.mkdir(exist_ok=True)
    with FileLock(f"{run}.lock"):
        if not (run / "report.md").exists():
            runs.masa_train(run, cache, *runs.SHORT, "trainer.report=true")
    return run


@pytest.fixture(scope="module")
def browser():
    """A real one, without a window."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no browser: apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
