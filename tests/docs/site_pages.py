"""Reading built pages and the sources of pages, with the standard library only."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
# attributes by which a page makes the browser load something, or leads somewhere
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "use": "href"}
# of <link>, only these are fetched
FETCHED_LINKS = {"stylesheet", "icon", "preload", "preconnect", "dns-prefetch", "manifest", "modulepreload"}


@dataclass
class Page(HTMLParser):
    """anchors: ids that a link may name. links: href of every <a>. loaded: what the browser fetches by itself."""

    file: Path
    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._in_style = False
        self.feed(self.file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self._in_style = tag == "style"
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        fetched = tag != "link" or FETCHED_LINKS & set(values.get("rel", "").split())
        if tag in LOADED and values.get(LOADED[tag]) and fetched:
            self.loaded.append(values[LOADED[tag]])
        self.styles.append(values.get("style", ""))

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.styles.append(data)


def is_outside(address: str) -> bool:
    """Whether an address leaves the site; `//host/...` does, too."""
    parts = urlsplit(address)
    return bool(parts.scheme or parts.netloc)


def target_of(page: Path, address: str) -> tuple[Path, str]:
    """(file, anchor) that a relative address on a page names."""
    parts = urlsplit(address)
    path = unquote(parts.path)
    return ((page.parent / path).resolve() if path else page), unquote(parts.fragment)


def code_lines(text: str) -> list[str]:
    """Lines of indented or fenced code, continuation lines joined, and what stands between backticks."""
    blocks = re.findall(r"^(?: {4}|\t)(.*)$", text, flags=re.MULTILINE)
    fenced = [
        line
        for block in re.findall(r"^```.*?$(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    joined = re.sub(r"\\\n\s*", "", "\n".join([*blocks, *fenced])).splitlines()
    return [*joined, *re.findall(r"`([^`\n]+)`", text)]
