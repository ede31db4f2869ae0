"""Names and options between backticks on the pages exist, in the code, in nnU-Net, or in the lists of this file."""

from __future__ import annotations

import re
from pathlib import Path

import nnunetv2

from nnunetv2_slicemamba.planning.sizes import NETWORKS, SIZES, planner_name_of, plans_name_of
from nnunetv2_slicemamba.trainers.roles import ROLES
from nnunetv2_slicemamba.trainers.settings import SETTINGS
from tests.docs.site_pages import DOCS, REPOSITORY

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
# what is written like a key, a variable, a file or a class, and all with the package's name in it
NAME = re.compile(r"(?<!\w)(?:\w*(?i:slicemamba)\w*|\w*[A-Za-z]\w*_\w+|[A-Z]\w*[a-z][A-Z]\w*)(?!\w)")
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]+")
OF_OTHERS = {
    *("MLP_RATIO", "SSM_D_STATE", "SSM_RATIO"),
    *("DeepSupervisionLoss", "SlidingWindowInferer", "retain_graph"),
    *("GraceTime", "KillWait", "__pycache__", "nnUNetv2_export_model_to_zip"),
    *("--install-completion", "--no-deps"),
}
EXAMPLES = {
    *("MyWidePlans", "HybridMPlans", "HybridSPlans", "ResidualMPlans", "ResidualSPlans"),
    *("earlier_training_1", "previous_fold_X", "previous_best_slicing", "fold_0_supernet"),
    *("lesion_0000", "nuclei_000", "NAME_scan", "FILE_pretraining", "PLANS__CONFIGURATION"),
    *("NUMBER_0_log", "NUMBER_1_log"),
}


def known() -> set[str]:
    """The words and options of the sources, and the names that are put together while the program runs."""
    roots = [REPOSITORY / name for name in ("nnunetv2_slicemamba", "trainers", "search", "benchmarks")]
    files = [file for root in (*roots, Path(nnunetv2.__path__[0])) for file in root.rglob("*.py")]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    planned = {
        make(size, network) for make in (planner_name_of, plans_name_of) for size in SIZES for network in NETWORKS
    }
    words = {*re.findall(r"\w+", text), *re.findall(r"[\"'/](--[a-z][\w-]+)", text)}
    tests = {part for file in REPOSITORY.glob("tests/**/*.py") for part in (file.stem, file.parent.name)}
    return words | planned | {*ROLES, *SETTINGS} | {file.stem for file in files} | tests


def test_names_and_options_on_the_pages_exist() -> None:
    shown, exist = dict[str, str](), known()
    for page in PAGES:
        for text in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")):
            shown |= dict.fromkeys(NAME.findall(text) + OPTION.findall(text), page.name)
    assert len(shown) > 250
    unknown = {name: page for name, page in shown.items() if name not in exist}
    listed = OF_OTHERS | EXAMPLES
    assert {name: page for name, page in unknown.items() if name not in listed} == {}
    assert listed - set(unknown) == set(), "these need no exception"
