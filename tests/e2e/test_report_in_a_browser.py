"""report.html in a real browser: offline, on a phone and a wide screen, light and dark."""

import pytest
from synthetic_run import simulated_run

from masa.report import main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    small = {"held_out": 36, "prompts": 12, "steps": 12, "validate_every": 4}
    runs = [
        simulated_run(root / f"{method}{seed}", method=method, seed=seed, **small)
        for method in ("grpo", "masa_efficient")
        for seed in (0, 1)
    ]
    assert main([*map(str, runs), "--out", str(root / "report")]) == 0
    return root / "report" / "report.html"


@pytest.mark.parametrize("width", [390, 1280])
def test_it_opens_offline_and_only_its_wide_parts_scroll_sideways(browser, report, width):
    requests, errors, grounds = [], [], set()
    for scheme in ("light", "dark"):
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(report.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        sizes = page.evaluate("[...document.images].map(image => image.naturalWidth)")
        assert len(sizes) > 5 and min(sizes) > 100
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        headings = page.locator("h2").all_inner_texts()
        assert headings and page.locator("table").count() > 5
        page.close()
    assert errors == [] and len(grounds) == 2
    assert {url for url in requests if not url.startswith("data:")} == {report.as_uri()}
