"""Text of others is read in the encoding that it is in, or refused with the place."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from nnunetv2_slicemamba.common.text_files import read_text


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
def test_a_byte_order_mark_names_the_encoding_and_is_left_out(tmp_path: Path, encoding: str) -> None:
    mark = {
        "utf-16-le": codecs.BOM_UTF16_LE,
        "utf-16-be": codecs.BOM_UTF16_BE,
        "utf-32-le": codecs.BOM_UTF32_LE,
        "utf-32-be": codecs.BOM_UTF32_BE,
    }.get(encoding, b"")
    (tmp_path / "list.txt").write_bytes(mark + "Müller\ncase0001".encode(encoding))
    assert read_text(tmp_path / "list.txt") == "Müller\ncase0001"


def test_what_cannot_be_decoded_is_refused_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes("case0001\nMüller\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"list\.txt, line 2: the byte 0xfc does not fit utf-8; save it as UTF-8"):
        read_text(tmp_path / "list.txt")
