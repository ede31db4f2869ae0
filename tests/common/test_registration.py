"""nnU-Net finds our classes through nnUNet_extTrainer, or once registered; and registering can be taken back."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nnunetv2
import pytest
import typer
from typer.testing import CliRunner

from nnunetv2_slicemamba.cli import register as register_command
from nnunetv2_slicemamba.cli import trainer_path
from nnunetv2_slicemamba.common import registration
from nnunetv2_slicemamba.common.registration import (
    EXT_TRAINER_FOLDER,
    MARKER,
    SHIMS,
    RegistrationError,
    register,
    registered_shims,
    unregister,
)

VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "nnUNet_extTrainer", "PYTHONPATH")
SITE_PACKAGES = Path(nnunetv2.__path__[0]).parent


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """A folder with the two subfolders of nnunetv2 that are written to, and nothing in them."""
    for shim in SHIMS:
        (tmp_path / shim.file).parent.mkdir(parents=True)
    return tmp_path


@pytest.fixture(scope="module")
def registered_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH, with a copy of nnunetv2 in which our classes are registered."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(nnunetv2.__path__[0], folder / "nnunetv2", ignore=shutil.ignore_patterns("tests"))
    register(folder / "nnunetv2")
    return folder


def python(script: str, cwd: Path, *flags: str, **environment: str) -> str:
    """Output of a fresh interpreter that runs `script` with no nnU-Net variable but those given."""
    inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(
        [sys.executable, *flags, "-c", script],
        cwd=cwd,
        env=inherited | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(folder: Path) -> dict[str, str]:
    """Every file below `folder` with its text."""
    return {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*") if file.is_file()}


def test_trainer_path_prints_nothing_but_the_folder_and_imports_neither_torch_nor_nnunet(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from nnunetv2_slicemamba.cli import main\n"
        "try:\n"
        "    main(['trainer-path'])\n"
        "except SystemExit as end:\n"
        "    assert not end.code\n"
        "heavy = {'torch', 'nnunetv2', 'numpy', 'optuna'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    assert python(script, tmp_path) == f"{EXT_TRAINER_FOLDER}\n"


def test_the_trainer_folder_is_absolute_and_holds_the_shim_alone() -> None:
    assert EXT_TRAINER_FOLDER.is_absolute()
    # nnU-Net imports whatever lies there
    assert [file.name for file in EXT_TRAINER_FOLDER.glob("*.py")] == ["slicemamba_trainers.py"]


def test_nnunet_finds_the_identical_picklable_class_with_nothing_but_the_variable(tmp_path: Path) -> None:
    script = (
        "import pickle\n"
        "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name\n"
        "found = recursive_find_trainer_class_by_name('SliceMambaTrainer_1epoch')\n"
        "from nnunetv2_slicemamba.trainers import TRAINERS\n"
        "assert found is TRAINERS['SliceMambaTrainer_1epoch']\n"
        "assert pickle.loads(pickle.dumps(found)) is found\n"
        "for name, trainer in TRAINERS.items():\n"
        "    assert recursive_find_trainer_class_by_name(name) is trainer, name\n"
        "print('passed')\n"
    )
    output = python(script, tmp_path, nnUNet_extTrainer=str(EXT_TRAINER_FOLDER))
    assert output.splitlines()[-1] == "passed"


def test_a_registered_nnunet_finds_trainers_and_planners_without_the_variable(
    registered_copy: Path, tmp_path: Path
) -> None:
    script = (
        "import pickle, sys\n"
        "from os.path import join\n"
        "import nnunetv2\n"
        "from nnunetv2.utilities.find_class_by_name import recursive_find_python_class\n"
        "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name\n"
        f"assert nnunetv2.__path__[0] == {str(registered_copy / 'nnunetv2')!r}, nnunetv2.__path__\n"
        "def planner(name):\n"
        "    folder = join(nnunetv2.__path__[0], 'experiment_planning')\n"
        "    return recursive_find_python_class(folder, name, 'nnunetv2.experiment_planning')\n"
        "assert planner('nnUNetPlannerResEncM').__name__ == 'nnUNetPlannerResEncM'\n"
        "assert recursive_find_trainer_class_by_name('nnUNetTrainer_1epoch').__name__ == 'nnUNetTrainer_1epoch'\n"
        "assert not [m for m in sys.modules if m.startswith('nnunetv2_slicemamba')], 'stock names pay for ours'\n"
        "found = planner('SliceMambaPlannerS')\n"
        "assert 'nnunetv2_slicemamba.trainers' not in sys.modules\n"
        "from nnunetv2_slicemamba.planning.planner import SliceMambaPlannerS\n"
        "assert found is SliceMambaPlannerS\n"
        "assert planner('SliceMambaPlannerHybridM').default_plans_name == 'nnUNetSliceMambaHybridMPlans'\n"
        "found = recursive_find_trainer_class_by_name('SliceMambaTrainer_1epoch')\n"
        "from nnunetv2_slicemamba.trainers import TRAINERS\n"
        "assert found is TRAINERS['SliceMambaTrainer_1epoch']\n"
        "assert pickle.loads(pickle.dumps(found)) is found\n"
        "for name, trainer in TRAINERS.items():\n"
        "    assert recursive_find_trainer_class_by_name(name) is trainer, name\n"
        "assert planner('SliceMambaNoSuchPlanner') is None\n"
        "print('passed')\n"
    )
    assert python(script, tmp_path, PYTHONPATH=str(registered_copy)).splitlines()[-1] == "passed"


def test_shims_left_behind_by_an_uninstalled_package_stop_no_look_up(registered_copy: Path, tmp_path: Path) -> None:
    script = (
        "import importlib.util\n"
        "from os.path import join\n"
        "import nnunetv2\n"
        "assert importlib.util.find_spec('nnunetv2_slicemamba') is None\n"
        "from nnunetv2.utilities.find_class_by_name import recursive_find_python_class\n"
        "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name\n"
        "assert recursive_find_trainer_class_by_name('nnUNetTrainer_1epoch').__name__ == 'nnUNetTrainer_1epoch'\n"
        "folder = join(nnunetv2.__path__[0], 'experiment_planning')\n"
        "found = recursive_find_python_class(folder, 'nnUNetPlannerResEncM', 'nnunetv2.experiment_planning')\n"
        "assert found.__name__ == 'nnUNetPlannerResEncM'\n"
        "try:\n"
        "    recursive_find_trainer_class_by_name('SliceMambaTrainer')\n"
        "except RuntimeError as error:\n"
        "    print(error)\n"
    )
    # without site, the link of an editable install to our package is not followed
    output = python(script, tmp_path, "-S", PYTHONPATH=f"{registered_copy}{os.pathsep}{SITE_PACKAGES}")
    assert "Could not find requested nnunet trainer SliceMambaTrainer" in output


def test_registering_twice_is_registering_once(layout: Path) -> None:
    first = register(layout)
    before = contents(layout)
    assert register(layout) == first == registered_shims(layout)
    assert contents(layout) == before
    assert sorted(before) == sorted(shim.file for shim in SHIMS)


def test_an_outdated_shim_of_ours_is_renewed(layout: Path) -> None:
    outdated = layout / SHIMS[0].file
    outdated.write_text(f"{MARKER}\nraise ImportError\n")
    register(layout)
    assert outdated.read_text() == SHIMS[0].text


def test_undo_leaves_nnunet_as_it_was(layout: Path) -> None:
    (layout / "training/nnUNetTrainer/variants/slicemamba_mine.py").write_text("mine = 1\n")
    before = contents(layout)
    written = register(layout)
    assert unregister(layout) == written
    assert contents(layout) == before
    assert unregister(layout) == []


@pytest.mark.parametrize("shim", SHIMS, ids=lambda shim: shim.what)
def test_somebody_elses_file_of_that_name_is_neither_overwritten_nor_removed(layout: Path, shim: object) -> None:
    foreign = layout / shim.file  # type: ignore[attr-defined]
    foreign.write_text("class SliceMambaTrainer: pass\n")
    before = contents(layout)
    with pytest.raises(RegistrationError, match="was not written by 'slicemamba register'") as caught:
        register(layout)
    assert str(foreign) in str(caught.value)
    assert unregister(layout) == []
    assert contents(layout) == before


@pytest.mark.parametrize("refused", SHIMS, ids=lambda shim: shim.what)
def test_a_folder_that_is_not_writable_is_named_with_the_remedy_and_nothing_is_left_behind(
    layout: Path, refused: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = (layout / refused.file).parent  # type: ignore[attr-defined]
    write = Path.write_text

    # permission bits do not stop root, which tests may run as
    def write_unless_refused(self: Path, *args: object, **kwargs: object) -> int:
        if self.parent == folder:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return write(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", write_unless_refused)
    with pytest.raises(RegistrationError) as caught:
        register(layout)
    assert str(folder) in str(caught.value)
    assert 'export nnUNet_extTrainer="$(slicemamba trainer-path)"' in str(caught.value)
    assert contents(layout) == {}


def test_an_nnunet_laid_out_differently_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(RegistrationError, match=r"does not exist.*nnUNet_extTrainer"):
        register(tmp_path)


def test_the_export_line_keeps_folders_that_are_set_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_extTrainer", "/mine")
    assert registration.export_line() == 'export nnUNet_extTrainer="$nnUNet_extTrainer:$(slicemamba trainer-path)"'


def test_the_command_says_what_it_wrote_and_removed(layout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(register_command, "nnunet_folder", lambda: layout)
    app = typer.Typer()
    register_command.add_commands(app)
    trainer_path.add_commands(app)
    for command, verb in ((["register"], "wrote"), (["register", "--undo"], "removed")):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0
        for shim in SHIMS:
            assert f"{verb} {layout / shim.file}" in result.output.splitlines()
    assert "nothing to remove" in CliRunner().invoke(app, ["register", "--undo"]).output
