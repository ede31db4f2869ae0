"""The page of figures in a real browser: silent, complete, readable on a phone, in the dark and in print."""

import shutil

import pytest

from nnunetv2_slicemamba.search.figures.page import write_figures
from tests.search.structured_search import data_of

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra [test])")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on the PATH")

CONTRASTS = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const solid = (e) => (channels(getComputedStyle(e).backgroundColor)[3] ?? 1) === 1;
  return [...document.querySelectorAll('body *')]
    .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()))
    .map((e) => {
      let behind = e;
      while (behind.parentElement && !solid(behind)) behind = behind.parentElement;
      const colours = [getComputedStyle(e).color, getComputedStyle(behind).backgroundColor];
      const pair = colours.map((c) => luminance(channels(c)));
      return [(Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05), e.textContent.trim().slice(0, 40)];
    });
}"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_figures(data_of(), tmp_path_factory.mktemp("page"))


@pytest.fixture
def open_page(browser, file):
    contexts = []

    def opened(width=1280, height=900, **settings):
        context = browser.new_context(viewport={"width": width, "height": height}, **settings)
        contexts.append(context)
        page = context.new_page()
        page.heard = []
        page.on("console", lambda message: page.heard.append(message.text))
        page.on("pageerror", lambda error: page.heard.append(str(error)))
        page.on("request", lambda request: page.heard.append(request.url))
        page.goto(file.as_uri())
        page.heard = [text for text in page.heard if not text.startswith("data:") and text != page.url]
        return page

    yield opened
    for context in contexts:
        context.close()


def test_nothing_is_said_or_fetched_and_all_five_pictures_are_there_with_their_words(open_page):
    page = open_page()
    assert page.heard == []
    images = page.locator("img").evaluate_all(
        "all => Promise.all(all.map(async (e) => { await e.decode(); return [e.naturalWidth, e.clientWidth, e.alt] }))"
    )
    assert len(images) == 5
    for natural, shown, alt in images:
        assert natural == 1440
        assert shown > 600
        assert len(alt) > 60
    assert "e2.2" in images[1][2]
    assert page.locator("tbody tr").count() == 9
    assert page.locator("h1").inner_text() == "Dataset999_<b>Test</b>, 2d, fold 0"
    assert page.locator("h1 b").count() == 0


def test_a_phone_scrolls_pictures_inside_the_page_but_not_the_page(open_page):
    page = open_page(360, 740, is_mobile=True, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("img").first.evaluate("e => e.clientWidth") >= 500, "shrunk further, its text is unreadable"
    page.locator(".picture").first.focus()
    assert page.evaluate("document.activeElement.className") == "picture"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_colour_schemes(open_page, scheme):
    contrasts = open_page(color_scheme=scheme).evaluate(CONTRASTS)
    assert len(contrasts) > 40
    assert min(contrasts)[0] >= 4.5, min(contrasts)


def test_print_is_light_and_cuts_no_figure(open_page):
    page = open_page(color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
    page.set_viewport_size({"width": 688, "height": 1017})
    assert (
        max(page.locator("img, table").evaluate_all("all => all.map((e) => e.getBoundingClientRect().right)")) <= 688.5
    )
    figures = page.locator("figure")
    assert set(figures.evaluate_all("all => all.map((e) => getComputedStyle(e).breakInside)")) == {"avoid"}
    assert max(figures.evaluate_all("all => all.map((e) => e.getBoundingClientRect().height)")) < 1017
