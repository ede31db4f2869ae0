"""Commands that are killed or asked to end at random moments, again and again, end as ones that never were.

Every command is ended by SIGKILL, SIGTERM or Ctrl-C, alone or with all its processes. No process of it goes on. The
same command is then run to its end, and leaves the files of an uninterrupted one. Trainings have a seed, so that their
weights are compared bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nnunetv2_slicemamba.demo.layout import DATA
from tests.conftest import REPOSITORY
from tests.end_to_end.conftest import trainer_path
from tests.end_to_end.workspace import BIN, PLANS, ZYGOTE, Workspace
from tests.end_to_end.zygote import SHORT, STAYED
from tests.pretraining.image_folder import write_image_folder

pytestmark = [
    pytest.mark.xdist_group("trained"),  # where the process is from which commands are forked
    pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="processes are counted in /proc"),
]

SEED = 20
SUPERNET, FINAL = "SliceMambaSupernetTrainer_5epochs", "SliceMambaTrainer_5epochs"
FOLD = f"-d 511 -c 2d -f 0 -p {PLANS}"
DATASET = "Dataset511_Tiny"
RESULT = f"nnUNet_results/{DATASET}/{FINAL}__{PLANS}__2d/fold_0"
TRAIN = f"nnUNetv2_train 511 2d 0 -p {PLANS} -device cpu"


@dataclass(frozen=True)
class Command:
    """line: what is run. again: what is added after it was ended. short: trainings have two iterations an epoch."""

    line: str
    again: str = ""
    short: bool = True


# each needs what those above it leave
COMMANDS = {
    "convert": Command(
        "slicemamba convert folders --images source/images --masks source/masks -d 511 --name Tiny --labels nucleus "
        "--split random:1 -np 1"
    ),
    "plan": Command("slicemamba plan -d 511 -c 2d --size S --network paper --gpu-memory 1 -np 1"),
    "supernet": Command(f"{TRAIN} -tr {SUPERNET}", " --c"),
    "search": Command(
        f"slicemamba search {FOLD} -tr {SUPERNET} -device cpu --population 4 --generations 2 --parents 2"
    ),
    "final": Command(f"{TRAIN} -tr {FINAL}", " --c"),
    "evaluate": Command(f"slicemamba evaluate {RESULT}/validation nnUNet_raw/{DATASET}/labelsTr --chill"),
    "report": Command("slicemamba report -d 511 -o report.html"),
    "export": Command(f"slicemamba export {FOLD} -tr {FINAL} --format torchscript -o network.ts"),
    "import": Command(f"slicemamba import {RESULT}/checkpoint_final.pth -d 511 -c 2d -p {PLANS} --to imported.pth"),
    "pretrain": Command(
        f"slicemamba pretrain pictures -d 511 -c 2d -p {PLANS} --to pretrained.pth --slicing random:1 --epochs 2 "
        "--warmup-epochs 1 --batch-size 4 --image-size 32 --workers 0 --log-every 1 --save-minutes 0.001 -device cpu"
    ),
    # their trainings are processes of their own, which import everything anew
    "run": Command(
        f"slicemamba run -d 511 -c 2d -f 1 -p {PLANS} -tr SliceMambaTrainer_1epoch --population 2 --generations 1 "
        "-device cpu",
        short=False,
    ),
    "compare": Command(
        f"slicemamba compare {FOLD} --trainer SliceMambaTrainer_1epoch --arms 2x2 -device cpu", short=False
    ),
}


def call(
    root: Path, command: Command, again: bool = False, end: dict[str, float] | None = None, seed: str | None = "3"
) -> tuple[int, str]:
    """Exit code and output of a command in a workspace. seed: None for trainings with nnU-Net's own loaders."""
    script, *arguments = (command.line + command.again * again).split()
    variables = {"nnUNet_extTrainer": trainer_path_once(), "nnUNet_n_proc_DA": "1"}
    if seed is not None:
        variables["SLICEMAMBA_SEED"] = seed
    if command.short:
        variables[SHORT] = "1"
    else:
        variables["PYTHONPATH"] = str(REPOSITORY)
    workspace = Workspace(root, variables)
    return ZYGOTE.run(BIN / script, arguments, workspace.environment(), root, end)


_PATH: list[str] = []


def trainer_path_once() -> str:
    if not _PATH:
        _PATH.append(trainer_path())
    return _PATH[0]


@dataclass(frozen=True)
class Whole:
    """Workspaces before and after an uninterrupted command, and the seconds that it took."""

    before: Path
    after: Path
    seconds: float


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Whole]:
    """whole(name): an uninterrupted command, after those above it."""
    base = tmp_path_factory.mktemp("kills")
    names, done = list(COMMANDS), {}

    def start() -> Path:
        root = base / "start"
        if not root.exists():
            for kind, there, ending in (("images", "imagesTr", "_0000.png"), ("masks", "labelsTr", ".png")):
                (root / "source" / kind).mkdir(parents=True)
                for i in range(10):
                    picture = Image.open(DATA / "nuclei2d" / there / f"nuclei_{i:03d}{ending}")
                    picture.crop((64, 64, 128, 128)).save(root / "source" / kind / f"n{i}.png")
            write_image_folder(root / "pictures", train=8, validation=2)
            for folder in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
                (root / folder).mkdir()
        return root

    def run(name: str) -> Whole:
        if not done:
            # the process from which commands are forked takes its time to start
            call(start(), Command("slicemamba --help"))
        if name not in done:
            number = names.index(name)
            before = run(names[number - 1]).after if number else start()
            after = base / name
            shutil.copytree(before, after, symlinks=True)
            began = time.monotonic()
            code, said = call(after, COMMANDS[name])
            assert code == 0, said[-4000:]
            done[name] = Whole(before, after, time.monotonic() - began)
        return done[name]

    return run


def kill_and_continue(name: str, whole: Whole, rng: random.Random, kills: int, root: Path, share: float = 0.9) -> int:
    """Ends a command `kills` times, then lets it end by itself and compares; returns how many came in time.

    share: part of the uninterrupted command's time in which a signal may come.
    """
    command, counted, again = COMMANDS[name], 0, False
    shutil.copytree(whole.before, root, symlinks=True)
    for _ in range(kills):
        end = {
            "after": rng.uniform(0.05, share) * whole.seconds,
            "signal": int(rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])),
            "group": int(rng.random() < 0.5),
        }
        code, said = call(root, command, again, end)
        print(f"{name}: {end} -> {code}")
        assert code != STAYED, f"processes of {name} stayed after {end}:\n{said[-2000:]}"
        if code == 0:  # it came too late; a finished training can be continued, and not begun again
            again = True
            break
        expected = {signal.SIGKILL: (-9,), signal.SIGTERM: (-15, 143, 130), signal.SIGINT: (-2, 1, 130)}
        assert code in expected[signal.Signals(end["signal"])], f"{code} after {end}:\n{said[-2000:]}"
        counted, again = counted + 1, True
    code, said = call(root, command, again)
    assert code == 0, said[-4000:]
    assert contents(root) == contents(whole.after)
    return counted


def contents(root: Path) -> dict[str, Any]:
    """What the files of a workspace say, but for times, places, and what is drawn or logged."""
    found = {}
    for file in sorted(root.rglob("*")):
        name = str(file.relative_to(root))
        if file.is_file() and not re.search(IGNORED, name):
            found[name] = content(file, root)
    return found


IGNORED = (
    r"training_log_|progress\.png|network_architecture|debug\.json|\.pdf$|made_with\.json|study\.db|\.lock$|events\.out|"
    r"__pycache__|checkpoint_best\.pth|\.html$|\.output$|figures/|\.log$"
)
TIMES = re.compile(
    r"time|second|created|since|date|duration|sha256|crc32|size|versions|host|measured|ended|began", re.IGNORECASE
)


def content(file: Path, root: Path) -> Any:
    if file.suffix == ".json":
        return without_times(json.loads(file.read_text()), root)
    if file.suffix == ".jsonl":
        return sorted(json.dumps(without_times(json.loads(line), root)) for line in file.read_text().splitlines())
    if file.suffix == ".pth":
        weights = torch.load(file, map_location="cpu", weights_only=False)
        weights = weights.get("network_weights", weights.get("network", {}))
        return hashlib.sha256(b"".join(weights[key].numpy().tobytes() for key in sorted(weights))).hexdigest()
    if file.suffix == ".npz":
        with np.load(file) as arrays:
            return {key: hashlib.sha256(arrays[key].tobytes()).hexdigest() for key in arrays}
    if file.suffix == ".ts":
        return sorted(torch.jit.load(file).state_dict())
    if file.suffix == ".tex":
        return file.read_text()
    return hashlib.sha256(file.read_bytes()).hexdigest()


def without_times(value: Any, root: Path) -> Any:
    if isinstance(value, dict):
        return {key: without_times(item, root) for key, item in value.items() if not TIMES.search(key)}
    if isinstance(value, list):
        return [without_times(item, root) for item in value]
    if isinstance(value, str):
        return re.sub(r"\S*/(kills\d*|test_\w*)/\w+", "ROOT", value.replace(str(root), "ROOT"))
    return value


def test_a_training_that_is_ended_once_ends_as_if_it_had_not_been(
    whole: Callable[[str], Whole], tmp_path: Path
) -> None:
    kill_and_continue("supernet", whole("supernet"), random.Random(SEED), 1, tmp_path / "root")


def test_nnunets_own_loaders_end_with_a_training_that_is_killed_or_asked_to_end(
    whole: Callable[[str], Whole], tmp_path: Path
) -> None:
    found = whole("supernet")
    for number in (signal.SIGKILL, signal.SIGTERM):
        for share in (0.6, 0.4, 0.25, 0.15):  # the machine may have become faster: then the training has ended before
            root = tmp_path / f"{number.name} {share}"
            shutil.copytree(found.before, root)
            end = {"after": share * found.seconds, "signal": int(number), "group": 0}
            code, said = call(root, COMMANDS["supernet"], again=True, end=end, seed=None)
            if code != 0:
                break
        assert code in (-number, 128 + number), said[-2000:]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_ended_again_and_again_ends_as_if_it_had_not_been(
    name: str, whole: Callable[[str], Whole], tmp_path: Path
) -> None:
    rng, counted = random.Random(f"{SEED + 1} {name}"), 0
    wanted, share = (4, 0.9) if name in ("run", "compare") else (9, 0.9)
    for chain in range(20):
        kills = min(3, wanted - counted)
        came = kill_and_continue(name, whole(name), rng, kills, tmp_path / f"root_{chain}", share)
        # the machine may have become faster, and what is there already is not done again
        counted, share = counted + came, share if came == kills else max(0.3, share - 0.2)
        if counted == wanted:
            return
    pytest.fail(f"{name} is over before it can be ended")
