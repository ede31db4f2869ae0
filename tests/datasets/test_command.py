"""`slicemamba convert` as users call it: what it prints, and what it refuses before it starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nnunetv2_slicemamba.cli.main import main
from nnunetv2_slicemamba.datasets.registry import all_converters
from tests.datasets.dataset_sources import cases_in, write_pair, write_parts

MANY = ",".join(f"part{i}" for i in range(32768))


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "raw"


def call(*arguments: object) -> None:
    """The command; returns where it succeeds."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as ended:
        if ended.code:
            raise


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["convert", *(str(argument) for argument in arguments)])
    assert ended.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_it_says_what_it_found_and_what_comes_next(
    tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_parts(tmp_path / "isic17", {"train": "abcd", "val": "vw", "search": "ab"})
    call("convert", "isic2017", tmp_path / "isic17", "-d", 12, "--resize", 32, 24, "-np", 2)
    out = capsys.readouterr().out
    assert "fold 0: the source's own division, 4 train, 2 validate" in out
    assert "'slicemamba search -f 1' measures on these images" in out
    assert "6 training cases, 0 held out; 6 written now, 0 there already" in out
    assert "Next: slicemamba run -d 12 -c 2d -f 0\n" in out
    assert cases_in(raw / "Dataset012_ISIC2017", "Tr") == set("abcdvw")


def test_ones_own_folders(tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pair(tmp_path / "i", tmp_path / "m", "a")
    call("convert", "folders", "--images", tmp_path / "i", "--masks", tmp_path / "m", "-d", 13, "--name", "Mine")
    assert cases_in(raw / "Dataset013_Mine", "Tr") == {"a"}
    out = capsys.readouterr().out
    assert "Next: slicemamba run -d 13 -c 2d -f all\n" in out, "one case makes no folds"
    assert "terms" not in out, "those of one's own data are one's own matter"


def test_the_next_command_predicts_test_images_where_there_are_some(
    tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pair(tmp_path / "i", tmp_path / "m", "a")
    write_pair(tmp_path / "ti", tmp_path / "tm", "b")
    own = ("--images", tmp_path / "i", "--masks", tmp_path / "m")
    call("convert", "folders", *own, "--test-images", tmp_path / "ti", "--test-masks", tmp_path / "tm", "-d", 14)
    assert "Next: slicemamba run -d 14 -c 2d -f all --predict\n" in capsys.readouterr().out


def test_the_list_names_every_dataset_and_imports_nothing_heavy() -> None:
    program = (
        "import sys; from nnunetv2_slicemamba.cli.main import main\n"
        "try: main(['convert', '--list'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'nnunetv2', 'nibabel', 'scipy', 'numpy', 'PIL'} & set(sys.modules)"
    )
    listed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    for converter in all_converters():
        assert converter.key in listed


@pytest.mark.parametrize(
    ("arguments", "told"),
    (
        (("isic2017", "."), "give the dataset's name and -d ID"),
        (("isic2019", ".", "-d", "1"), "there is no dataset 'isic2019'; give one of isic2017, isic2018"),
        (("isic2017", "nowhere", "-d", "1"), "the source nowhere is not a folder; unpack archives first"),
        (("isic2017", "-d", "1"), "give the folder with the download"),
        (("isic2017", ".", "-d", "0"), "-d is 0; give a whole number from 1 to 999999"),
        (("isic2017", ".", "-d", "1000000"), "-d is 1000000; give a whole number from 1 to 999999"),
        (("isic2017", ".", "-d", "1", "--split", "half"), "there is no split 'half'"),
        (("isic2017", ".", "-d", "1", "--split", "by-sequence"), "--split by-sequence is for clinicdb"),
        (("isic2017", ".", "-d", "1", "--resize", "0", "5"), "--resize is 0; give a whole number from 1 to 20000"),
        (("isic2017", ".", "-d", "1", "--resize", "20000", "20000"), "at most 178,956,970"),
        (("folders", "--images", ".", "--masks", ".", "-d", "1", "--labels", MANY), "so give at most 32767"),
        (("isic2017", ".", "-d", "1", "--name", "a/b"), "a dataset cannot be named 'a/b'"),
        (("isic2017", ".", "-d", "1", "--labels", "a"), "--labels is for folders"),
        (("isic2017", ".", "-d", "1", "--channels", "a"), "--channels is for folders"),
        (("isic2017", ".", "-d", "1", "--test-images", "."), "--test-images is for folders"),
        (("isic2017", ".", "-d", "1", "--split", "holdout:1.2"), "there is no split 'holdout:1.2'"),
        (("isic2017", ".", "-d", "1", "--images", "."), "--images and --masks are for 'convert folders'"),
        (("folders", ".", "-d", "1"), "convert folders takes --images DIR and --masks DIR"),
        (("synapse", ".", "-d", "1", "--organs", "9"), "--organs is 9; give 8 or 13"),
        (("synapse", ".", "-d", "1", "--resize", "5", "5"), "--resize is for images"),
        (("kvasir", ".", "-d", "1", "--train", "all"), "--train is 'all'; give joint or own"),
        (("kvasir", ".", "-d", "1", "-np", "0"), "-np is 0; give a whole number from 1 to 1024"),
    ),
)
def test_what_does_not_fit_is_refused_with_the_remedy(
    tmp_path: Path,
    raw: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert told in refused(capsys, *arguments)
    assert not raw.exists() or not any(raw.iterdir())


def test_an_unset_folder_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("nnUNet_raw", raising=False)
    assert "nnUNet_raw is not set" in refused(capsys, "isic2017", tmp_path, "-d", 1)


def test_a_folder_that_is_only_looked_at_is_not_made(
    tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    write_pair(tmp_path / "i", tmp_path / "m", "a")
    (tmp_path / "i" / "[red].dcm").touch()
    call("convert", "folders", "--images", tmp_path / "i", "--masks", tmp_path / "m", "-d", 1013, "--name", "Mine")
    assert not (tmp_path / "results").exists()
    assert cases_in(raw / "Dataset1013_Mine", "Tr") == {"a"}
    told = "0 there already; 1 file of the source left out (1 .dcm): i/[red].dcm."
    assert told in " ".join(capsys.readouterr().out.split())
