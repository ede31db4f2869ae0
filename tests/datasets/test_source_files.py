"""What is in a source is converted, refused, or named: links, other endings, sub-folders, one folder for both."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from nnunetv2_slicemamba.datasets.source_files import files_below, image_endings, left_out
from tests.datasets.dataset_sources import cases_in, disk, run, write_nifti, write_pair, write_parts


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def own(tmp_path: Path, raw: Path, images: str = "images", masks: str = "masks", **options: object):
    """The conversion of two folders of one's own."""
    return run("folders", tmp_path, raw, sources=(tmp_path / images, tmp_path / masks), **options)


def test_linked_folders_are_listed_and_a_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    for name in ("a.png", "deep/b.png", ".hidden.png", "deep/.ds"):
        (tmp_path / "disk" / name).touch()
    source = tmp_path / "source"
    source.mkdir()
    (source / "data").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "deep" / "loop").symlink_to(source)
    (source / "again").symlink_to(tmp_path / "disk")
    (source / "lost.png").symlink_to(tmp_path / "nowhere.png")
    assert [str(path.relative_to(source)) for path in files_below(source)] == [
        "again/a.png",
        "again/deep/b.png",
        "lost.png",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(PermissionError):
        files_below(tmp_path)


def test_scans_in_linked_folders_are_found(tmp_path: Path, raw: Path) -> None:
    write_nifti(tmp_path / "disk", (1, 5, 6))
    (tmp_path / "source").mkdir()
    for kind in ("img", "label"):
        (tmp_path / "source" / kind).symlink_to(tmp_path / "disk" / "RawData" / "Training" / kind)
    folder = run("synapse", tmp_path / "source", raw).folder
    assert cases_in(folder, "Ts", ".nii.gz") == {"case0001"}


def test_a_change_behind_a_link_is_seen(tmp_path: Path, raw: Path) -> None:
    write_parts(tmp_path / "disk", {"train": "abcde"})
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "train").symlink_to(tmp_path / "disk" / "train")
    run("isic2017", tmp_path / "source", raw)
    Image.fromarray(disk("a")[1][::-1].astype(np.uint8) * 255).save(tmp_path / "disk" / "train" / "masks" / "a.png")
    with pytest.raises(ValueError, match="whose files have changed since"):
        run("isic2017", tmp_path / "source", raw)


def test_a_link_that_leads_nowhere_is_refused(tmp_path: Path, raw: Path) -> None:
    write_pair(tmp_path / "images", tmp_path / "masks", "a")
    (tmp_path / "masks" / "a.png").unlink()
    (tmp_path / "masks" / "a.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match=r"unreadable or cut off \(1\):\n +\S+/masks/a.png \(0 bytes\)"):
        own(tmp_path, raw)


@pytest.mark.parametrize("ending", [".webp", ".gif", ".ppm", ".jp2", ".tga", ".PNG"])
def test_every_format_that_pillow_decodes_is_read(tmp_path: Path, raw: Path, ending: str) -> None:
    if ending.lower() not in image_endings():
        pytest.skip("this Pillow lacks the format")
    for stem in "ab":
        write_pair(tmp_path / "images", tmp_path / "masks", stem, mask_ending=ending)
    folder = own(tmp_path, raw).folder
    assert cases_in(folder, "Tr") == {"a", "b"}
    assert np.array_equal(np.asarray(Image.open(folder / "labelsTr" / "a.png")), disk("a")[1])


def test_films_stubs_and_programs_are_no_images() -> None:
    assert not image_endings() & {".mpg", ".h5", ".hdf", ".eps", ".ps", ".wmf", ".pdf"}


def test_files_that_become_nothing_are_counted_with_three_examples(tmp_path: Path, raw: Path) -> None:
    write_pair(tmp_path / "images", tmp_path / "masks", "a")
    write_pair(tmp_path / "images" / "patient2", tmp_path / "masks" / "patient2", "b")
    for name in ("c.dcm", "d.dcm", "LICENSE", "notes.txt", "Thumbs.db", "desktop.ini", ".DS_Store", "a.json", "t.CSV"):
        (tmp_path / "images" / name).touch()
    done = own(tmp_path, raw)
    told = (
        "5 files of the source left out (2 .dcm, 2 .png, 1 without ending): images/LICENSE, images/c.dcm, "
        "images/d.dcm and 2 more"
    )
    assert done.conversion.left_out == told
    # from the manifest, as the source is not read again
    again = own(tmp_path, raw)
    assert (again.written, again.conversion.left_out) == (0, told)


def test_files_that_become_nothing_are_told_with_the_problems_too(tmp_path: Path, raw: Path) -> None:
    write_pair(tmp_path / "images", tmp_path / "masks", "a")
    (tmp_path / "masks" / "a.png").rename(tmp_path / "masks" / "a.dcm")
    with pytest.raises(ValueError, match=r"image without mask \(1\)") as refused:
        own(tmp_path, raw)
    assert "1 file of the source left out (1 .dcm): masks/a.dcm" in str(refused.value)


def test_nothing_is_said_where_everything_is_used(tmp_path: Path) -> None:
    write_pair(tmp_path / "images", tmp_path / "masks", "a")
    assert left_out([tmp_path], files_below(tmp_path)) == ""


def test_one_folder_for_images_and_masks_is_paired_by_the_masks_suffix(tmp_path: Path, raw: Path) -> None:
    for stem in ("benign (1)", "benign (2)"):
        write_pair(tmp_path / "benign", tmp_path / "benign", stem, suffix="_mask")
    (tmp_path / "link").symlink_to(tmp_path / "benign")
    folder = own(tmp_path, raw, "benign", "link").folder
    assert cases_in(folder, "Tr") == {"benign__1_", "benign__2_"}
    assert np.array_equal(np.asarray(Image.open(folder / "labelsTr" / "benign__1_.png")), disk("benign (1)")[1])


def test_one_folder_without_such_names_is_refused(tmp_path: Path, raw: Path) -> None:
    write_pair(tmp_path / "images", tmp_path / "masks", "a")
    with pytest.raises(ValueError, match=r"one folder for images and masks \(1\):\n.* give two folders"):
        own(tmp_path, raw, "masks", "masks")
    (tmp_path / "images" / "a.png").unlink()
    (tmp_path / "images" / "a.png").symlink_to(tmp_path / "masks" / "a.png")
    with pytest.raises(ValueError, match=r"image is its own mask \(1\)"):
        own(tmp_path, raw)


def test_lists_of_others_are_read_whatever_their_encoding(tmp_path: Path, raw: Path) -> None:
    from tests.datasets.dataset_sources import write_preprocessed

    source = tmp_path / "source"
    write_preprocessed(source, train=(5,), test=(1, 2))
    file = source / "lists" / "lists_Synapse" / "test_vol.txt"
    for encoding in ("utf-8-sig", "utf-16"):
        file.write_text("case0001\ncase0002\n", encoding=encoding)
        folder = run("synapse", source, raw, name=encoding.replace("-", "_")).folder
        assert cases_in(folder, "Ts", ".nii.gz") == {"case0001", "case0002"}
        raw = tmp_path / "second"
        raw.mkdir(exist_ok=True)
    file.write_text("case0001\ncase2\n")
    with pytest.raises(ValueError, match=r"unexpected entry of a list \(1\):\n.*test_vol.txt, line 2: 'case2'"):
        run("synapse", source, tmp_path / "third")
    file.write_bytes(b"case0001\n\xff\n")
    with pytest.raises(ValueError, match=r"test_vol.txt, line 2: the byte 0xff does not fit utf-8"):
        run("synapse", source, tmp_path / "third")


def test_scans_of_four_axes_with_one_voxel_are_written_with_three(tmp_path: Path, raw: Path) -> None:
    write_nifti(tmp_path / "source", (5, 6))
    for file in (tmp_path / "source").rglob("*0005.nii.gz"):
        image = nibabel.load(file)
        nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj)[..., None], image.affine), file)
    folder = run("synapse", tmp_path / "source", raw).folder
    for name in ("imagesTr/case0005_0000", "labelsTr/case0005"):
        assert nibabel.load(folder / f"{name}.nii.gz").shape == (14, 12, 5)
