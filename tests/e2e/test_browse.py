"""masa-browse in a real browser: filters, paging, and text of a model that cannot run as script."""

import pytest
from synthetic_run import prompt_rows, write_run

from masa.browse import main

ATTACK = '<img src=x onerror="document.title=\'run\'"></pre><script>document.title="run"</script>'

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    rows = []
    for step in (1, 2):
        rows += prompt_rows("train", step, f"easy{step}", (True,) * 4, (1.0,), level=1)
        rows += prompt_rows("train", step, f"mixed{step}", (True, False), (0.0,), level=2)
        rows += prompt_rows(
            "train", step, f"hard{step}", (False,) * 4, (0.5,), level=3, audited=True
        )
        rows += prompt_rows("train", step, f"gone{step}", (), (0.0,), level=3, skipped=True,
                            would_skip=True, enforced=True)  # fmt: skip
    rows += prompt_rows("val", 2, "held", (False, True), (1.0,), level=1)
    for row in rows:
        if row["kind"] == "meta":
            row["text"] = 'short</meta>{"pass_rate": 3}'
        if row["prompt_id"] == "held":
            row["text"] = f"{ATTACK} \\boxed{{\\frac{{1}}{{2}}}} end"
    path = write_run(tmp_path_factory.mktemp("browse") / "run", rows)
    assert main([str(path)]) == 0
    return path / "browse.html"


@pytest.fixture
def page(browser, page_file):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.requests, page.errors = [], []
    page.on("request", lambda request: page.requests.append(request.url))
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(page_file.as_uri())
    yield page
    page.close()


def place(page):
    return page.locator("#place").inner_text()


def choose(page, name, value):
    page.select_option(f"select[name={name}]", value)


def test_it_opens_offline_and_pages(page, page_file):
    assert place(page) == "1 of 9" and page.errors == []
    assert page.requests == [page_file.as_uri()]
    page.click("#next")
    assert place(page) == "2 of 9"
    page.click("#previous")
    page.click("#previous")
    assert place(page) == "9 of 9"
    page.keyboard.press("ArrowRight")
    assert place(page) == "1 of 9"


@pytest.mark.parametrize("name, value, count", [
    ("step", "1", 4), ("level", "2", 2), ("split", "val", 1), ("verdict", "mixed", 3),
    ("verdict", "all right", 2), ("verdict", "all wrong", 2), ("verdict", "not sampled", 2),
    ("decision", "skipped", 2), ("decision", "audited", 2), ("decision", "rolled out", 7),
])  # fmt: skip
def test_filters(page, name, value, count):
    choose(page, name, value)
    assert place(page) == f"1 of {count}"
    choose(page, name, "")
    assert place(page) == "1 of 9"


def test_filters_together_text_and_order(page):
    choose(page, "verdict", "mixed")
    choose(page, "split", "train")
    assert place(page) == "1 of 2" and "mixed1" in page.locator("main h2").first.inner_text()
    page.fill("input[name=text]", "mixed2")
    assert place(page) == "1 of 1"
    page.fill("input[name=text]", "nowhere")
    assert place(page) == "no prompt" and page.locator("article").count() == 0
    page.fill("input[name=text]", "")
    choose(page, "verdict", "")
    choose(page, "split", "")
    choose(page, "order", "worst predictions first")
    # predicted 0 of a half, .5 of none, 1 of a half
    assert "level 1" not in page.locator("main h2").first.inner_text()


def test_answers_and_predictions_are_marked(page):
    choose(page, "split", "val")
    marks = page.locator("article:not(.meta) mark").all_inner_texts()
    assert set(marks) == {"\\boxed{\\frac{1}{2}}"} and len(marks) == 2
    choose(page, "split", "train")
    assert page.locator("article.meta mark").all_inner_texts() == ['{"pass_rate": 3}']


def test_text_of_a_model_is_text(page, page_file):
    choose(page, "split", "val")
    assert ATTACK in page.locator("pre").nth(1).inner_text()
    page.wait_for_timeout(200)
    assert page.title() != "run" and page.locator("main img, main script").count() == 0
    assert page.requests == [page_file.as_uri()] and page.errors == []


def test_a_phone_needs_no_sideways_scrolling(page):
    for _ in range(9):
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390
        page.click("#next")
