"""The page is one file that needs nothing else, escapes what it is given, and is the same for the same input."""

import datetime
import json
import re
import shutil
import xml.etree.ElementTree as ET
from collections import Counter

import numpy as np
import pytest

from nnunetv2_slicemamba.cli import main
from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.report import ReportSettings, write_report
from nnunetv2_slicemamba.report import render as render_module
from nnunetv2_slicemamba.report.formats import plural
from nnunetv2_slicemamba.report.gather import gather
from nnunetv2_slicemamba.report.overlays import contour_path, draw_case
from nnunetv2_slicemamba.report.page import build_page
from nnunetv2_slicemamba.report.render import render
from nnunetv2_slicemamba.report.slicing_views import slicing_views
from nnunetv2_slicemamba.search.figures.style import BAR, BEST, CANDIDATE_COLOURS, TIMES, shown
from tests.report.report_tree import DAY, FINAL, PLANS, STOCK, SUPERNET, Tree


def test_the_command_writes_beside_the_results_and_says_where(own, capfd):
    with pytest.raises(SystemExit) as end:
        main(["report", "-d", "501", "-c", "large"])
    assert end.value.code == 0
    file = own.folder("nnUNet_results") / "report.html"
    assert file.read_text().startswith("<!DOCTYPE html>")
    assert f"Report: {file}" in capfd.readouterr().out.replace("\n", "")


def test_without_results_it_goes_to_the_working_folder(tmp_path, use, monkeypatch):
    tree = use(Tree(tmp_path, "2d").add_raw(), ["nnUNet_raw"])
    monkeypatch.chdir(tmp_path)
    assert write_report(ReportSettings(tree.number)) == tmp_path / "report.html"
    text = (tmp_path / "report.html").read_text()
    assert "slicemamba plan -d 501 --size L" in text
    assert 'id="example-0-0-title"' in text, "the images are there and should be shown"


def test_the_page_refers_to_nothing_outside_itself(complete_2d, use, html_of):
    html = html_of(use(complete_2d))
    addresses = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", html)
    assert len(addresses) > 20
    assert [address for address in addresses if not address.startswith(("#", "data:"))] == []
    assert "<script" not in html
    assert "default-src 'none'" in html


def test_the_same_input_gives_the_same_bytes_but_the_date(complete_3d, use, html_of):
    html = html_of(use(complete_3d))
    settings = ReportSettings("502", predictions=(complete_3d.root / "ensemble",))
    again = render(build_page(gather(settings)), datetime.date(2027, 3, 4))
    assert again != html
    assert again.replace("2027-03-04", DAY.isoformat()) == html


def test_ids_are_unique_and_references_lead_somewhere(complete_2d, complete_3d, use, html_of):
    for tree in (complete_2d, complete_3d):
        html = html_of(use(tree))
        ids = re.findall(r'\bid="([^"]+)"', html)
        assert len(ids) == len(set(ids))
        referred = re.findall(r'(?:href="#|url\(#|aria-labelledby=")([^")]+)', html)
        assert set(referred) <= set(ids)


def test_every_figure_says_in_words_what_it_shows(complete_3d, use, html_of):
    html = html_of(use(complete_3d))
    figures = re.findall(r'<svg[^>]*role="img"[^>]*>\s*<title[^>]*>([^<]+)</title>', html)
    assert len(figures) == html.count("<svg") - html.count('aria-hidden="true"') + html.count(
        '<span aria-hidden="true"'
    )
    assert any("Slicing of fold 0, in network order" in words for words in figures)
    assert any("axial slice" in words for words in figures)


def test_numbers_on_the_page_are_those_of_the_results(complete_2d, use, html_of):
    html = html_of(use(complete_2d))
    for fold in range(2):
        summary = json.loads((complete_2d.fold(FINAL, fold) / "validation" / "summary.json").read_text())
        assert f'<td class="number">{summary["foreground_mean"]["Dice"]:.4f}</td>' in html.replace(' group">', '">')
    assert "95\N{NARROW NO-BREAK SPACE}% interval" in html


def test_epochs_are_epochs_and_classes_classes():
    assert [plural(2, word) for word in ("epoch", "class", "patch", "case")] == [
        "2 epochs", "2 classes", "2 patches", "2 cases",
    ]  # fmt: skip


def test_names_from_outside_are_text_and_not_markup(own):
    evil = "<script>alert(1)</script>&\"'"
    for folder in ("nnUNet_raw", "nnUNet_preprocessed"):
        file = own.folder(folder) / "dataset.json"
        description = json.loads(file.read_text())
        description["labels"] = {"background": 0, evil: 1}
        description["channel_names"] = {"0": evil}
        description["licence"] = evil
        file.write_text(json.dumps(description))
    validation = own.fold(FINAL, 0) / "validation"
    summary = json.loads((validation / "summary.json").read_text())
    case = summary["metric_per_case"][0]
    case["prediction_file"] = "/x/<img src=x onerror=alert(2)>.png"
    case["metrics"]["1"]["Dice"] = 0.9999
    (validation / "summary.json").write_text(json.dumps(summary))
    shutil.rmtree(own.fold(STOCK, 0, "nnUNetPlans"))
    shutil.rmtree(own.fold(SUPERNET, 0).parent)
    html = render(build_page(gather(ReportSettings("501"))), DAY)
    assert "<script" not in html
    assert "<img" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "onerror=alert(2)&gt;" in html.replace("<wbr>", "")


def test_an_old_report_stays_until_the_new_one_is_complete(own, monkeypatch):
    output = own.root / "report.html"
    old = '<meta name="generator" content="nnunetv2_slicemamba 0">'
    output.write_text(old)

    def fails(*arguments):
        raise RuntimeError("half way")

    monkeypatch.setattr(render_module, "build_page", lambda *_: None)
    monkeypatch.setattr(render_module, "render", lambda *_: "x" * 10)
    monkeypatch.setattr("os.replace", fails)
    with pytest.raises(RuntimeError, match="half way"):
        write_report(ReportSettings("501", output=output))
    assert output.read_text() == old
    assert [file.name for file in own.root.glob("*report*")] == ["report.html"]


def test_a_place_that_cannot_be_written_is_refused_first(own, tmp_path, monkeypatch):
    monkeypatch.setattr(render_module, "gather", lambda *_: pytest.fail("work had begun"))
    with pytest.raises(InputError, match="is a folder; give a file"):
        write_report(ReportSettings("501", output=tmp_path))
    with pytest.raises(InputError, match="does not exist; make it"):
        write_report(ReportSettings("501", output=tmp_path / "no" / "report.html"))
    with pytest.raises(InputError, match="must end with .html"):
        write_report(ReportSettings("501", output=tmp_path / "plans.json"))
    (tmp_path / "thesis.html").write_text("<html>")
    with pytest.raises(InputError, match="was not written by this command: it would be lost"):
        write_report(ReportSettings("501", output=tmp_path / "thesis.html"))


def test_a_final_network_with_another_slicing_than_the_file_is_pointed_out(own):
    def warnings():
        return [chosen.warning for chosen in slicing_views(gather(ReportSettings("501")))[0].slicings]

    assert warnings() == ["", ""]
    files = [own.fold(FINAL, fold) / "checkpoint_final.pth" for fold in range(2)]
    shutil.copy(files[1], files[0])
    assert warnings() == [
        f"{FINAL}__{PLANS}__2d, fold 0, was trained with another slicing than the file holds now.",
        "",
    ]


def test_every_block_of_every_fold_is_drawn_with_its_thickness(complete_3d, use):
    use(complete_3d)
    chosen = slicing_views(gather(ReportSettings("502")))[0].slicings
    assert [one.fold for one in chosen] == ["0", "1"]
    for fold, one in enumerate(chosen):
        root = ET.fromstring(one.figure)
        drawn = ["".join(text.itertext()).strip() for text in root.iter("text")]
        thicknesses = [shown(thickness) for thickness in complete_3d.slicing(fold)]
        assert Counter(text for text in drawn if re.fullmatch(rf"\d{TIMES}\d{TIMES}\d", text)) == Counter(thicknesses)
        counts = {text.split(": ")[0]: int(text.split(": ")[1]) for text in drawn if ": " in text}
        assert counts == {shown(one): thicknesses.count(shown(one)) for one in complete_3d.candidates}
        assert root.find("title").text.endswith(f"d1.1 {thicknesses[-1]}.")


def test_figures_take_their_colours_from_the_style_sheet(complete_2d, use):
    use(complete_2d)
    (view,) = slicing_views(gather(ReportSettings("501")))
    for figure in (view.slicings[0].figure, view.agreement.figure):
        assert "var(--ink)" in figure or "var(--muted)" in figure
        fixed = set(re.findall(r"#[0-9a-f]{6}", figure)) - {colour.lower() for colour in CANDIDATE_COLOURS}
        assert fixed <= {BAR.lower(), BEST.lower()}, "text and lines that would not change in the dark"


def test_a_contour_runs_between_inside_and_outside_and_is_closed_at_the_border():
    mask = np.zeros((6, 8), bool)
    mask[0:3, 2:5] = True
    path = contour_path(mask, (10.0, 5.0))
    numbers = np.array(re.findall(r"[\d.]+", path), float).reshape(-1, 2)
    assert path.startswith("M")
    assert path.endswith("Z")
    assert numbers.min(axis=0) == pytest.approx([10, 0])
    assert numbers.max(axis=0) == pytest.approx([25, 30])
    assert contour_path(np.zeros((4, 4), bool), (1, 1)) == ""


def test_a_volume_is_shown_in_three_slices_through_its_foreground(complete_3d, use):
    use(complete_3d)
    data = gather(ReportSettings("502"))
    raw = complete_3d.folder("nnUNet_raw")
    case = data.dataset.cases[0]
    files = [raw / "imagesTr" / f"{case}_0000.nii.gz"], raw / "labelsTr" / f"{case}.nii.gz"
    pictures = draw_case(case, *files, None, data.dataset, "x")
    assert [picture.what.split()[0] for picture in pictures] == ["axial", "coronal", "sagittal"]
    for picture in pictures:
        assert picture.drawing.count('class="line class-') >= 1
    other = raw / "labelsTr" / f"{data.dataset.cases[1]}.nii.gz"
    with pytest.raises(ValueError, match="voxels, the image"):
        draw_case(case, files[0], other, None, data.dataset, "x")
