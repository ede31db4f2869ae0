"""SliceMambaInheritTrainer starts with the weights that the supernet has on the chosen path."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from nnunetv2_slicemamba.cli.main import app
from nnunetv2_slicemamba.search import read_slicing_file, write_slicing_file

WHERE = ["-d", "901", "-c", "2d", "-f", "0", "-p", "nnUNetSliceMambaSPlans"]


@pytest.fixture
def supernet_of(make_trainer: Callable[..., Any]) -> Callable[..., Any]:
    """supernet_of(name, value): a supernet trainer with a final checkpoint and the slicing that `--set value` gives.

    The slicing lies where the supernet's search writes it; with searched=False, where one lies that was set by hand.
    """

    def make(name: str, value: str, searched: bool = True) -> tuple[Any, Path]:
        trainer = make_trainer(name)
        with torch.no_grad():
            for parameter in trainer.network.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        folder = Path(trainer.output_folder)
        folder.mkdir(parents=True, exist_ok=True)
        trainer.save_checkpoint(str(folder / "checkpoint_final.pth"))
        result = CliRunner().invoke(app, ["slicing", *WHERE, "--set", value, "-tr", name])
        assert result.exit_code == 0, result.exception
        (by_hand,) = Path(trainer.output_folder_base).parent.glob("slicings/*/fold_0.json")
        file = folder / "slicing_search" / "best_slicing.json"
        if searched:
            file.parent.mkdir()
            by_hand.rename(file)
        return trainer, file if searched else by_hand

    return make


@pytest.mark.parametrize("supernet", ["SliceMambaSupernetTrainer_1epoch", "SliceMambaSharedSupernetTrainer_1epoch"])
@pytest.mark.parametrize("variant", ["", "NoDeepSupervision"])
def test_every_tensor_is_the_supernets_on_the_chosen_path(
    supernet: str, variant: str, supernet_of: Callable[..., Any], make_trainer: Callable[..., Any]
) -> None:
    taught, file = supernet_of(supernet, "random:3")
    path = read_slicing_file(file).choice.architecture
    assert path is not None
    assert len(set(path)) > 1
    expected = taught.supernet.extract(path)
    trainer = make_trainer(f"SliceMambaInheritTrainer{variant}")
    trainer._use_slicing_file()
    found = trainer.network.state_dict()
    assert set(found) == set(expected.state_dict())
    for name, value in expected.state_dict().items():
        assert torch.equal(found[name], value), name
    assert trainer.network.get_slicing() == taught.supernet.slicing_of(path)
    x = torch.randn(1, 1, 32, 40)
    with torch.no_grad():
        outputs = [network.eval()(x) for network in (trainer.network, expected)]
    full, wanted = (o[0] if isinstance(o, list) else o for o in outputs)
    assert torch.equal(full, wanted)


def test_a_damaged_supernet_and_one_with_nan_are_not_inherited(
    supernet_of: Callable[..., Any], make_trainer: Callable[..., Any]
) -> None:
    taught, file = supernet_of("SliceMambaSupernetTrainer_1epoch", "random:3")
    checkpoint = file.parents[1] / "checkpoint_final.pth"
    whole = checkpoint.read_bytes()
    trainer = make_trainer("SliceMambaInheritTrainer")
    weight = next(taught.network.parameters()).detach().numpy().tobytes()
    checkpoint.write_bytes(whole.replace(weight[:8], bytes(8), 1))
    with pytest.raises(
        ValueError, match=r"checkpoint_final\.pth cannot be read: .*; move it away and train the supernet"
    ):
        trainer._use_slicing_file()
    with torch.no_grad():
        next(taught.network.parameters()).view(-1)[0] = torch.nan
    taught.save_checkpoint(str(checkpoint))
    with pytest.raises(ValueError, match="cannot be used: 1 of its .* tensors hold NaN"):
        trainer._use_slicing_file()


def test_a_slicing_that_was_set_by_hand_inherits_from_the_folds_only_supernet(
    supernet_of: Callable[..., Any], make_trainer: Callable[..., Any]
) -> None:
    taught, file = supernet_of("SliceMambaSupernetTrainer_1epoch", "random:3", searched=False)
    path = read_slicing_file(file).choice.architecture
    trainer = make_trainer("SliceMambaInheritTrainer")
    trainer._use_slicing_file()
    expected = taught.supernet.extract(path).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in trainer.network.state_dict().items())
    supernet_of("SliceMambaSharedSupernetTrainer_1epoch", "random:3", searched=False)
    with pytest.raises(ValueError, match="set by hand, and 2 supernets of this fold are trained"):
        make_trainer("SliceMambaInheritTrainer")._use_slicing_file()


def test_the_plain_trainer_still_starts_from_scratch(
    supernet_of: Callable[..., Any], make_trainer: Callable[..., Any]
) -> None:
    supernet_of("SliceMambaSupernetTrainer_1epoch", "random:3")
    trainer = make_trainer("SliceMambaTrainer")
    before = trainer.network.encoder.patch_embedding.proj.weight.clone()
    trainer._use_slicing_file()
    assert torch.equal(trainer.network.encoder.patch_embedding.proj.weight, before)


def test_without_the_trained_supernet_it_says_what_is_missing(
    supernet_of: Callable[..., Any], make_trainer: Callable[..., Any]
) -> None:
    _, file = supernet_of("SliceMambaSupernetTrainer_1epoch", "random:3")
    (file.parents[1] / "checkpoint_final.pth").unlink()
    with pytest.raises(FileNotFoundError, match="needs a trained supernet"):
        make_trainer("SliceMambaInheritTrainer")._use_slicing_file()


def test_a_slicing_searched_with_another_supernet_is_refused(
    supernet_of: Callable[..., Any], make_trainer: Callable[..., Any]
) -> None:
    _, file = supernet_of("SliceMambaSupernetTrainer_1epoch", "random:3")
    write_slicing_file(dataclasses.replace(read_slicing_file(file), supernet_checkpoint_sha256="a" * 64), file)
    with pytest.raises(ValueError, match="searched with another supernet"):
        make_trainer("SliceMambaInheritTrainer")._use_slicing_file()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"fold": 1}, "Dataset901_Disks nnUNetSliceMambaSPlans 2d 1"),
        ({"dataset": "Dataset902_Slabs"}, "Dataset902_Slabs nnUNetSliceMambaSPlans 2d 0"),
        ({"plans_name": "OtherPlans"}, "Dataset901_Disks OtherPlans 2d 0"),
        ({"configuration": "3d_fullres"}, "Dataset901_Disks nnUNetSliceMambaSPlans 3d_fullres 0"),
    ],
)
def test_the_supernet_of_another_fold_or_place_is_refused_before_any_weight_is_taken(
    changed: dict[str, Any],
    named: str,
    supernet_of: Callable[..., Any],
    make_trainer: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, file = supernet_of("SliceMambaSupernetTrainer_1epoch", "random:3")
    write_slicing_file(dataclasses.replace(read_slicing_file(file), **changed), file)
    monkeypatch.setenv("SLICEMAMBA_SLICING", str(file))
    trainer = make_trainer("SliceMambaInheritTrainer")
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    with pytest.raises(ValueError, match="inherits from only the supernet of its own fold") as caught:
        trainer._use_slicing_file()
    for words in (str(file), named, "Dataset901_Disks nnUNetSliceMambaSPlans 2d 0", "SLICEMAMBA_SLICING"):
        assert words in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in trainer.network.state_dict().items())


def test_a_thickness_that_the_supernet_has_not_learned_is_refused(
    supernet_of: Callable[..., Any], make_trainer: Callable[..., Any]
) -> None:
    supernet_of("SliceMambaSupernetTrainer_1epoch", "1x3")
    with pytest.raises(ValueError, match="1x3, which the supernet was not trained with"):
        make_trainer("SliceMambaInheritTrainer")._use_slicing_file()
