"""SliceMambaInheritTrainer: starts from the supernet's weights of the chosen path instead of from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_slicemamba.common.checkpoint_names import FINAL
from nnunetv2_slicemamba.common.checkpoints import load_network, read_training
from nnunetv2_slicemamba.common.hashing import sha256_of_file
from nnunetv2_slicemamba.nets.path_supernet import Supernet
from nnunetv2_slicemamba.slicing.candidates import candidate_text, in_order, listed
from nnunetv2_slicemamba.slicing.file import SlicingFile, read_slicing_file
from nnunetv2_slicemamba.slicing.find import SEARCH_FOLDER, supernet_folders
from nnunetv2_slicemamba.trainers.final import SliceMambaTrainer, place_of
from nnunetv2_slicemamba.trainers.supernet import SliceMambaSharedSupernetTrainer, SliceMambaSupernetTrainer


class SliceMambaInheritTrainer(SliceMambaTrainer):
    """As SliceMambaTrainer, but every weight starts as the fold's supernet has it on the path of best_slicing.json.

    The supernet is the one in whose folder the slicing file lies, or the fold's only one if the slicing was set by
    hand. The file must be of the same dataset, plans, configuration and fold. It is read when training starts from
    epoch 0, and takes the place of -pretrained_weights; a continued training needs it no more.
    """

    role: ClassVar[str] = "inherit"

    def _begin_without_blocks(self) -> None:
        raise ValueError(
            f"the network of the plans {self.plans_manager.plans_name} has no S3 blocks, so there is no supernet to "
            "inherit from: train it with SliceMambaTrainer"
        )

    def _use_slicing_file(self) -> None:
        file = self.find_slicing()
        chosen = read_slicing_file(file)
        if place_of(chosen) != self.place:
            # the supernets of other folds were trained with this one's validation cases
            raise ValueError(
                f"{file} is of {place_of(chosen)}, this training of {self.place}: a trainer inherits from only the "
                "supernet of its own fold, with the same dataset, plans and configuration. Unset SLICEMAMBA_SLICING or "
                "name the file of that supernet, or train from scratch with SliceMambaTrainer"
            )
        # a slicing that was set by hand lies with no supernet
        of_search = file.parent.name == SEARCH_FOLDER
        checkpoint = supernet_checkpoint(file, chosen, None if of_search else self.only_supernet(file))
        super()._use_slicing_file()
        supernet = self.load_supernet(checkpoint)
        weights = supernet.extract(indices_on(supernet, chosen, file)).state_dict()
        self.sliced_network.load_state_dict(weights)
        self.print_to_log_file(f"Weights inherited from the supernet in {checkpoint}")

    def only_supernet(self, file: Path) -> Path:
        """The final checkpoint of the fold's only trained supernet, for a slicing file that lies with none.

        Raises FileNotFoundError if there is none, ValueError if there are several.
        """
        place = (Path(self.output_folder_base).parent, self.plans_manager.plans_name, self.configuration_name)
        checkpoints = [folder / f"fold_{self.fold}" / FINAL for folder in supernet_folders(*place)]
        trained = [checkpoint for checkpoint in checkpoints if checkpoint.is_file()]
        if not trained:
            raise FileNotFoundError(
                f"the slicing in {file} has no supernet: a trainer that inherits needs a trained supernet of its fold. "
                "Train one, or train from scratch with SliceMambaTrainer"
            )
        if len(trained) > 1:
            raise ValueError(
                f"the slicing in {file} was set by hand, and {len(trained)} supernets of this fold are trained: "
                f"{', '.join(map(str, trained))}. Leave one of them there, or train from scratch with SliceMambaTrainer"
            )
        return trained[0]

    def load_supernet(self, checkpoint: Path) -> Supernet:
        """The trained supernet of a checkpoint, on the CPU."""
        remedy = "move it away and train the supernet anew, or train from scratch with SliceMambaTrainer"
        trained_by = read_training(checkpoint, remedy, tensors=False).get("trainer_name")
        shared = str(trained_by).startswith(SliceMambaSharedSupernetTrainer.__name__)
        trainer: type[nnUNetTrainer] = SliceMambaSharedSupernetTrainer if shared else SliceMambaSupernetTrainer
        supernet = trainer.build_network_architecture(
            self.plans_manager,
            self.configuration_manager,
            self.num_input_channels,
            self.label_manager.num_segmentation_heads,
            self.enable_deep_supervision,
        )
        load_network(supernet, checkpoint, remedy)
        assert isinstance(supernet, Supernet)
        return supernet


def supernet_checkpoint(slicing_file: Path, chosen: SlicingFile, other: Path | None = None) -> Path:
    """The final checkpoint of the supernet in whose fold's folder a slicing file lies, or `other`.

    Raises FileNotFoundError if there is none, ValueError if the slicing was searched with another one.
    """
    checkpoint = other or slicing_file.parent.parent / FINAL
    if not checkpoint.is_file():
        raise FileNotFoundError(
            f"there is no {checkpoint}: a trainer that inherits needs a trained supernet with the slicing file in its "
            f"folder, fold_X/{SEARCH_FOLDER}/. Train the supernet, or train from scratch with SliceMambaTrainer"
        )
    searched = chosen.supernet_checkpoint_sha256
    if searched is not None and searched != sha256_of_file(checkpoint):
        raise ValueError(
            f"{slicing_file} was searched with another supernet (sha256 {searched[:12]}...) than {checkpoint}: search "
            "again with 'slicemamba search', or train from scratch with SliceMambaTrainer"
        )
    return checkpoint


def indices_on(supernet: Supernet, chosen: SlicingFile, file: Path) -> tuple[int, ...]:
    """The supernet's path with the chosen slicing; ValueError if a block is none of its candidates."""
    other = in_order(set(chosen.slicing) - set(supernet.candidates))
    if other:
        raise ValueError(
            f"{file} has {candidate_text(other[0])}, which the supernet was not trained with; its candidates are "
            f"{listed(supernet.candidates)}. Train from scratch with SliceMambaTrainer"
        )
    return tuple(map(supernet.candidates.index, chosen.slicing))
