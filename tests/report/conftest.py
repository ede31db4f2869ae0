"""Complete result trees in 2D and 3D, made once per run of the tests."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.report.report_tree import DAY, FOLDERS, Tree, build


@pytest.fixture(scope="session")
def complete_2d(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A complete 2D tree, not to be written to."""
    return build(tmp_path_factory.mktemp("report2d"), "2d")


@pytest.fixture(scope="session")
def complete_3d(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A complete 3D tree, not to be written to."""
    return build(tmp_path_factory.mktemp("report3d"), "3d")


@pytest.fixture(scope="session")
def regions_3d(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """Overlapping regions, one of them given as a number. Not to be written to."""
    labels = {"background": 0, "whole": [1, 2], "posterior": 2}
    return build(tmp_path_factory.mktemp("regions"), "3d", labels=labels)


@pytest.fixture(scope="session")
def stained_2d(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """RGB images, five folds, and searches in a database elsewhere. Not to be written to."""
    root = tmp_path_factory.mktemp("stained")
    return build(root, "2d", rgb=True, n_folds=5, storage=f"sqlite:///{root}/elsewhere.db")


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch):
    """Points nnU-Net's variables to a tree's folders."""

    def point(tree: Tree, variables: Sequence[str] = FOLDERS) -> Tree:
        for variable in FOLDERS:
            monkeypatch.delenv(variable, raising=False)
        for variable in variables:
            (tree.root / variable).mkdir(exist_ok=True)
            monkeypatch.setenv(variable, str(tree.root / variable))
        return tree

    return point


@pytest.fixture
def own(complete_2d: Tree, tmp_path: Path, use) -> Tree:
    """A test's own copy of the complete 2D tree, named by nnU-Net's variables."""
    shutil.copytree(complete_2d.root, tmp_path / "tree")
    return use(Tree(tmp_path / "tree", "2d"))


@pytest.fixture(scope="session")
def html_of():
    """The page of a complete tree that nnU-Net's variables name, made once."""
    from nnunetv2_slicemamba.report import ReportSettings
    from nnunetv2_slicemamba.report.gather import gather
    from nnunetv2_slicemamba.report.page import build_page
    from nnunetv2_slicemamba.report.render import render

    made: dict[Path, str] = {}

    def of(tree: Tree) -> str:
        if tree.root not in made:
            settings = ReportSettings(tree.number, predictions=(tree.root / "ensemble",))
            made[tree.root] = render(build_page(gather(settings)), DAY)
        return made[tree.root]

    return of
