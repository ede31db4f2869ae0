"""The page in a real browser: complete, silent, readable on a phone and in print, usable with the keyboard alone."""

import io
import re
import shutil

import numpy as np
import pytest
from PIL import Image

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra [test])")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on the PATH")

# what an element that contains text is drawn with, composited over the nearest background that is not transparent
CONTRASTS = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || element.closest('title, .unseen, .skip') || !element.getClientRects().length) continue;
    let behind = element;
    const solid = (e) => (channels(getComputedStyle(e).backgroundColor)[3] ?? 1) === 1;
    while (behind.parentElement && !solid(behind)) behind = behind.parentElement;
    const style = getComputedStyle(element);
    const colour = element instanceof SVGElement ? style.fill : style.color;
    const pair = [luminance(channels(colour)), luminance(channels(getComputedStyle(behind).backgroundColor))];
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    found.push([ratio, element.textContent.trim().slice(0, 40), colour]);
  }
  return found;
}"""
DECODED = """all => Promise.all(all.map(async (e) => {
  const image = new Image();
  image.src = e.href.baseVal;
  await image.decode();
  return image.naturalWidth;
}))"""
FOCUSED = """() => {
  const e = document.activeElement, style = getComputedStyle(e), box = e.getBoundingClientRect();
  return {
    name: e.matches('.skip') ? 'skip' : e.getAttribute('href') || e.id || e.getAttribute('aria-labelledby'),
    outline: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
    seen: box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight,
  };
}"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")

    def of(html: str) -> str:
        file = folder / f"{abs(hash(html))}.html"
        file.write_text(html, encoding="utf-8")
        return file.as_uri()

    return of


@pytest.fixture
def html(request, use, html_of):
    """The page of the complete 2D tree, or of each of those that EVERY names."""
    return html_of(use(request.getfixturevalue(getattr(request, "param", "complete_2d"))))


EVERY = pytest.mark.parametrize("html", ["complete_2d", "complete_3d", "regions_3d", "stained_2d"], indirect=True)


@pytest.fixture
def open_page(browser, address, html):
    """Opens the page in a context of the given settings; everything that it says or asks for is collected."""
    contexts = []

    def opened(width=1280, height=900, **settings):
        # without smooth scrolling: what has the focus is in view at once
        context = browser.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce", **settings)
        contexts.append(context)
        page = context.new_page()
        page.heard = []
        page.on("console", lambda message: page.heard.append(message.text))
        page.on("pageerror", lambda error: page.heard.append(str(error)))
        page.on("request", lambda request: page.heard.append(request.url))
        page.goto(address(html))
        page.heard = [text for text in page.heard if not text.startswith("data:") and text != page.url]
        return page

    yield opened
    for context in contexts:
        context.close()


@EVERY
def test_nothing_is_said_nothing_is_fetched_and_every_figure_is_visible(open_page):
    page = open_page()
    assert page.heard == []
    figures = page.locator("svg")
    boxes = figures.evaluate_all(
        "all => all.map((e) => { const b = e.getBoundingClientRect(); return [b.width, b.height] })"
    )
    assert len(boxes) > 25
    assert min(min(box) for box in boxes) > 5
    whole = np.asarray(Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("L"))
    for box in figures.evaluate_all("all => all.map((e) => e.getBoundingClientRect().toJSON())"):
        top, left = int(box["top"]), int(box["left"])
        drawn = whole[top : top + int(box["height"]), left : left + int(box["width"])]
        assert drawn.std() > 3, box
    images = page.locator("svg image").evaluate_all(DECODED)
    assert len(images) >= 9
    assert min(images) > 0


def test_the_keyboard_alone_reaches_everything_in_order_and_shows_where_it_is(open_page):
    page = open_page()
    links = page.locator("nav a").evaluate_all("all => all.map((e) => e.getAttribute('href'))")
    regions = page.locator("main [tabindex='0']").evaluate_all(
        "all => all.map((e) => e.getAttribute('aria-labelledby') || e.id)"
    )
    assert len(links) == 12
    assert len(regions) >= 10
    visited = []
    for _ in range(1 + len(links) + len(regions) + 10):
        page.keyboard.press("Tab")
        focus = page.evaluate(FOCUSED)
        if focus["name"] is None:
            break
        assert focus["outline"], focus
        assert focus["seen"], focus
        visited.append(focus["name"])
    assert visited[: 1 + len(links)] == ["skip", *links]
    assert [name for name in visited if name in regions] == regions


def test_enter_jumps_to_the_section_and_space_hides_a_contour(open_page):
    page = open_page()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.locator("nav a[href='#cases']").focus()
    page.keyboard.press("Enter")
    assert page.url.endswith("#cases")
    page.wait_for_url("**#cases")
    assert abs(page.evaluate("document.querySelector('#cases').getBoundingClientRect().top")) < 60
    contour = page.locator("#cases .overlay .prediction").first
    assert contour.is_visible()
    page.locator("#show-prediction").focus()
    page.keyboard.press("Space")
    assert not contour.is_visible()
    assert page.locator("#cases .overlay .truth").first.is_visible()


@EVERY
def test_a_phone_shows_it_without_scrolling_sideways(open_page):
    page = open_page(360, 740, is_mobile=True, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    beyond = "all => all.map((e) => e.getBoundingClientRect()).filter((b) => b.right > 360.5 || b.left < -0.5).length"
    assert page.locator("svg, h1, h2, h3, p, figure, .scroll").evaluate_all(beyond) == 0
    texts = page.locator("main svg text").evaluate_all(
        "all => all.map((e) => [e.getScreenCTM(), getComputedStyle(e).fontSize])"
        ".map(([matrix, size]) => parseFloat(size) * Math.hypot(matrix.a, matrix.b))"
    )
    assert min(texts) >= 7, "figures must stay readable on a phone"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_colour_schemes(open_page, scheme):
    page = open_page(color_scheme=scheme)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 200) == (scheme == "dark")
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 200
    worst = min(contrasts)
    assert worst[0] >= 4.5, worst


def test_print_is_light_and_cuts_no_figure(open_page):
    page = open_page(color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert min(page.evaluate(CONTRASTS))[0] >= 4.5
    assert not page.locator("nav").is_visible()
    pdf = page.pdf(prefer_css_page_size=True, print_background=True)
    assert pdf.startswith(b"%PDF")
    # on paper 182 mm wide nothing may stick out, and a figure must fit on a page of 269 mm
    page.set_viewport_size({"width": 688, "height": 1017})
    wide = page.locator("svg, table:not(.wide table)").evaluate_all(
        "all => all.map((e) => e.getBoundingClientRect().right)"
    )
    assert max(wide) <= 688.5
    figures = page.locator(".panels > div, .case, .networks figure")
    assert set(figures.evaluate_all("all => all.map((e) => getComputedStyle(e).breakInside)")) == {"avoid"}
    assert max(figures.evaluate_all("all => all.map((e) => e.getBoundingClientRect().height)")) < 1017


@pytest.mark.parametrize("html", ["stained_2d"], indirect=True)
def test_five_folds_fit_beside_each_other_on_a_desktop(open_page):
    page = open_page(1280, 900)
    for table in ("steps", "dice-folds"):
        region = page.locator(f"[aria-labelledby='{table}-caption']")
        assert region.evaluate("e => e.scrollWidth - e.clientWidth") <= 0, table
