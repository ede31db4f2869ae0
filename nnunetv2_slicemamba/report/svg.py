"""Figures as SVG elements of the page, in its colours and with a text for those who cannot see them.

They are elements inside the page, not images: they take their colours from the page's style sheet, which has a
light and a dark set and a light one for print, and their text takes the page's font.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from nnunetv2_slicemamba.common.console import printable
from nnunetv2_slicemamba.search.figures.style import GOOD, INK, MUTED, PAPER, RULE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours that no figure would use: each becomes a line colour of the page.
SERIES = tuple(f"#0102{16 + i:02x}" for i in range(8))
# Custom properties of style.css that take the place of a figure's colours.
_PROPERTIES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    PAPER: "var(--paper)",
    GOOD: "var(--good)",
    **{colour: f"var(--series-{i})" for i, colour in enumerate(SERIES)},
}
# How much larger than planned a figure may get where there is room: it is planned for a phone.
GROWTH = 1.25
_SVG = "http://www.w3.org/2000/svg"


class Drawing:
    """An SVG drawing under construction: shapes with classes of style.css, in a box of the given size."""

    def __init__(self, width: float, height: float, css_class: str = "") -> None:
        self.root = ET.Element("svg", {"viewBox": f"0 0 {_n(width)} {_n(height)}", "role": "img"})
        if css_class:
            self.root.set("class", css_class)
        self.root.set("style", f"max-width:{_n(width * GROWTH)}px")

    def add(self, tag: str, parent: ET.Element | None = None, text: str | None = None, **attributes: Any) -> ET.Element:
        """Adds an element; `class_` stands for class, underscores for hyphens, floats are shortened."""
        named = {
            name.rstrip("_").replace("_", "-"): _n(value) if isinstance(value, (int, float)) else str(value)
            for name, value in attributes.items()
        }
        element = ET.SubElement(self.root if parent is None else parent, tag, named)
        element.text = text
        return element

    def markup(self, name: str, label: str) -> Markup:
        """The element, to be put into a page. name: unique in it. label: what the picture shows, in words."""
        _label(self.root, name, label)
        # ElementTree has escaped every text and attribute
        return Markup(ET.tostring(self.root, encoding="unicode"))


def _label(root: ET.Element, name: str, label: str) -> None:
    title = ET.Element("title", {"id": f"{name}-title"})
    title.text = label
    root.insert(0, title)
    root.set("aria-labelledby", f"{name}-title")


def _n(value: float) -> str:
    """A number with at most two decimals, without trailing zeros."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def matplotlib_style() -> Any:
    """rcParams for figures of this page: colours to be replaced, text as text, the same bytes every time."""
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "slicemamba",
        "font.size": 9,
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.8,
        "axes.edgecolor": RULE,
        "axes.labelcolor": MUTED,
        "axes.titlecolor": INK,
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": RULE,
        "grid.linewidth": 0.5,
        "figure.facecolor": "none",
        "savefig.facecolor": "none",
        "text.color": INK,
        "xtick.color": RULE,
        "ytick.color": RULE,
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": MUTED,
        "ytick.major.size": 0,
        "legend.frameon": False,
        "legend.fontsize": 8,
    }


def themed(figure: Figure, name: str, label: str) -> Markup:
    """A matplotlib figure, drawn with matplotlib_style, as an element of the page.

    name: unique in the page, it precedes the ids that the drawing refers to. label: what the picture shows, in words.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    ET.register_namespace("", _SVG)
    # XML has no control characters, but matplotlib writes those of a name
    root = ET.fromstring(printable(buffer.getvalue()))
    for metadata in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(metadata)
    width = root.get("viewBox", "0 0 300 200").split()[2]
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    # points become pixels of the style sheet: text is as large as matplotlib was told
    root.set("style", f"max-width:{float(width) * 4 / 3 * GROWTH:.0f}px")
    root.set("role", "img")
    _label(root, name, label)
    text = ET.tostring(root, encoding="unicode").replace(f' xmlns="{_SVG}"', "")
    text = text.replace("xmlns:ns1=", "xmlns:xlink=").replace("ns1:href", "href").replace("xlink:href", "href")
    for colour, value in _PROPERTIES.items():
        text = text.replace(colour.lower(), value)
    text = re.sub(r' (?:d|x|y)="[^"]*"', _shorter, text)
    text = re.sub(r"font: (?:[a-z]+ )*?(bold )?([\d.]+)px [^;\"]*", _font, text)
    return Markup(_own_ids(text, name))


def _shorter(match: re.Match[str]) -> str:
    """An attribute without the digits below a hundredth of a point and the spaces that say nothing."""
    return re.sub(r"\s*([MLQCz])\s*", r"\1", re.sub(r"(\.\d\d)\d+", r"\1", match[0]))


def _font(match: re.Match[str]) -> str:
    weight = "font-weight: 600; " if match[1] else ""
    return f"{weight}font-size: {match[2]}px"


def _own_ids(text: str, name: str) -> str:
    """Every id preceded by the figure's name: matplotlib gives the same ones to every figure."""
    text = re.sub(r'\bid="(?!' + re.escape(name) + r'-)([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    return re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
