"""Pages in a real headless Chromium: drawn, quiet, and as wide as the window, also on a phone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import lab_chromium as chromium
import lab_report_made as made
import pytest

from qsgd_lab.report.render import of_comparison

pytestmark = pytest.mark.slow

WIDE, PHONE = 1280, 390
LOUD = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
DRAWN = """[...document.querySelectorAll(".plot")].map(plot => ({
    name: plot.dataset.name,
    marks: plot.querySelectorAll("svg.main-svg .scatterlayer .trace, svg.main-svg .point").length,
    width: plot.querySelector("svg.main-svg").getBoundingClientRect().width,
    room: plot.getBoundingClientRect().width,
    ink: getComputedStyle(plot.querySelector("svg.main-svg .xtick text")).fill,
}))"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    program = chromium.find()
    if program is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    found = chromium.Chromium(program, tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paper's arms, of which one run diverged and one failed with markup in its message."""
    base = made.learning(gain={"uniform@0.5:gradient": -0.02})

    def curve(arm, seed):
        if (arm, seed) == ("sine@0.1", 3):
            return "ValueError: <script>alert('x')</script><img src=x onerror=alert(1)>"
        lost = {"train_loss": None} if (arm, seed) == ("sine@0.5", 2) else {}
        return [row | (lost if i > 5 else {}) for i, row in enumerate(base(arm, seed))]

    home, _ = made.write(tmp_path_factory.mktemp("page") / "c", made.plan_of(), curve)
    path = home / "report.html"
    path.write_text(of_comparison(home, "html"), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [WIDE, PHONE])
@pytest.mark.parametrize("dark", [False, True], ids=["day", "night"])
def test_every_figure_is_drawn_nothing_is_complained_of_and_nothing_sticks_out(
    browser, page, width, dark
):
    browser.open(page, width=width, dark=dark, touch=width == PHONE)
    drawn = browser.evaluate(DRAWN)
    assert [d["name"] for d in drawn] == ["forest", "curves", "differences", "arriving", "effect"]
    for each in drawn:
        assert each["marks"] >= 6, each
        assert each["width"] == pytest.approx(each["room"], abs=1), each
    assert [message for message in browser.events if message[0] in LOUD] == []
    size = browser.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert size == [width, width]


def test_the_page_asks_for_nothing_but_itself(browser, page):
    browser.open(page, width=WIDE)
    sent = [p["request"]["url"] for m, p in browser.events if m == "Network.requestWillBeSent"]
    assert sent == [page.resolve().as_uri()]
    loaded = browser.evaluate("performance.getEntriesByType('resource').map(e => e.name)")
    assert loaded == []


def test_a_script_that_got_in_would_not_run(browser, page, tmp_path):
    """The policy is a second wall behind the escaping: it lets only the page's own scripts run."""
    broken = tmp_path / "broken.html"
    evil = "<script>window.got = 1</script><img src=x onerror='window.got = 1'></main>"
    broken.write_text(page.read_text().replace("</main>", evil))
    browser.open(broken, width=WIDE)
    assert browser.evaluate("window.got === undefined")
    refused = [p["entry"]["text"] for m, p in browser.events if m == "Log.entryAdded"]
    assert any("Content Security Policy" in text for text in refused)


def test_tables_scroll_inside_their_box_on_a_phone(browser, page):
    browser.open(page, width=PHONE, touch=True)
    boxes = browser.evaluate(
        "[...document.querySelectorAll('.scroll')].filter(b => b.clientWidth).map(b => "
        "[b.scrollWidth > b.clientWidth, b.getBoundingClientRect().right <= innerWidth])"
    )
    assert [True, True] in boxes
    assert all(inside for _, inside in boxes)


def test_text_is_no_wider_than_seventy_characters(browser, page):
    browser.open(page, width=WIDE)
    widths = browser.evaluate(
        "(() => { const ruler = document.createElement('span'); "
        "ruler.textContent = '0'.repeat(70); document.body.append(ruler); "
        "const most = ruler.getBoundingClientRect().width; ruler.remove(); "
        "return [most, ...[...document.querySelectorAll('p, li')].map("
        "p => p.getBoundingClientRect().width)]; })()"
    )
    most, *paragraphs = widths
    assert len(paragraphs) > 10
    assert max(paragraphs) <= most + 1


def test_figures_follow_the_readers_colours_and_the_windows_width(browser, page):
    browser.open(page, width=WIDE)
    day = browser.evaluate(DRAWN)
    browser.colours(dark=True)
    browser.settle()
    night = browser.evaluate(DRAWN)
    assert all(a["ink"] != b["ink"] for a, b in zip(day, night, strict=True))
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        width=PHONE, height=900, deviceScaleFactor=1, mobile=False,
    )  # fmt: skip
    browser.settle()
    narrow = browser.evaluate(DRAWN)
    assert all(0 < each["width"] < PHONE for each in narrow)


def test_an_arm_is_hidden_and_shown_by_its_legend(browser, page):
    browser.open(page, width=WIDE)
    count = "document.querySelectorAll('#figure-curves .scatterlayer .trace').length"
    key = 'document.querySelector(\'[data-figure="curves"][data-group="sine@0.5"]\')'
    before = browser.evaluate(count)
    browser.evaluate(f"{key}.click()")
    assert browser.evaluate(count) == before - 2  # the line and its band
    assert browser.evaluate(f"{key}.getAttribute('aria-pressed')") == "false"
    browser.evaluate(f"{key}.click()")
    assert browser.evaluate(count) == before


def test_what_is_folded_away_is_printed(browser, page, tmp_path):
    browser.open(page, width=WIDE, dark=True)
    assert browser.evaluate("document.querySelectorAll('details:not([open])').length") > 3
    browser.pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    assert browser.evaluate("document.querySelectorAll('details:not([open])').length") == 0


def test_names_that_are_markup_are_drawn_as_they_are(browser, tmp_path):
    name = "<script>alert(1)</script> <b>bold</b> %{x} & <a href='https://evil.example'>a</a>"
    plan = made.renamed(made.plan_of(("adamw", "sine@0.5", "uniform@0.5"), seeds=3), name)
    base = made.learning()
    home, _ = made.write(
        tmp_path / "c", plan, lambda arm, seed: base(arm[:5].replace("@", ""), seed)
    )
    path = home / "report.html"
    path.write_text(of_comparison(home, "html"), encoding="utf-8")
    browser.open(path, width=PHONE, touch=True)
    texts = browser.evaluate(
        "[...document.querySelectorAll('#figure-forest .annotation-text')].map(t => t.textContent)"
    )
    assert f"sine@0.5{name}" in texts
    assert browser.evaluate("document.querySelectorAll('main a, main svg a').length") == 0
    assert browser.evaluate("[document.documentElement.scrollWidth]") == [PHONE]
    assert [json.dumps(e) for e in browser.events if e[0] in LOUD] == []
