"""SliceMambaTrainer: trains the network with the slicing that was chosen for the fold."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.nets.sliced import SlicedNetwork
from nnunetv2_slicemamba.planning.architecture import planned_candidates
from nnunetv2_slicemamba.slicing.candidates import listed
from nnunetv2_slicemamba.slicing.file import SlicingFile, read_slicing_file
from nnunetv2_slicemamba.slicing.find import NothingChosenError, SeveralSlicingsError, slicing_file_for_training
from nnunetv2_slicemamba.slicing.fixed import fixed_in_words, fixed_slicing
from nnunetv2_slicemamba.trainers.base import SliceMambaBaseTrainer
from nnunetv2_slicemamba.trainers.held_out import HeldOutCases


class SliceMambaTrainer(HeldOutCases, SliceMambaBaseTrainer):
    """Trains the planned network from scratch with the slicing that was chosen for the fold, or the fixed one.

    A fold without a slicing file gets the fixed slicing, and the log says so; not where a search is on its way. A
    network without S3 blocks needs no slicing.
    The file is read when training starts from epoch 0, after -pretrained_weights, which bring a slicing of their
    own. Continued training, validation and prediction use the checkpoint's slicing and need no file; continuing
    beside files of which none has that slicing is refused.
    """

    role: ClassVar[str] = "final"

    @property
    def sliced_network(self) -> SlicedNetwork:
        network = self.bare_network
        assert isinstance(network, SlicedNetwork)
        return network

    @property
    def place(self) -> str:
        """Dataset, plans, configuration and fold that are trained, as place_of() names those of a slicing file."""
        names = (self.plans_manager.dataset_name, self.plans_manager.plans_name, self.configuration_name, self.fold)
        return " ".join(map(str, names))

    def find_slicing(self) -> Path:
        """The fold's slicing file; FileNotFoundError naming the ways to get one if there is none."""
        return slicing_file_for_training(
            Path(self.output_folder_base).parent,
            self.plans_manager.plans_name,
            self.configuration_name,
            self.fold,
        )

    def on_train_start(self) -> None:
        planned = self.configuration_manager.network_arch_init_kwargs
        if not any((*planned["n_blocks_per_stage"], *planned["n_blocks_per_stage_decoder"])):
            self._begin_without_blocks()
        elif self.current_epoch == 0:
            self._use_slicing_file()
        else:
            self._check_slicing_file()
        super().on_train_start()

    def _begin_without_blocks(self) -> None:
        self.print_to_log_file("the network has no S3 blocks, and so no slicing")

    def _use_slicing_file(self) -> None:
        try:
            file = self.find_slicing()
        except NothingChosenError:
            self._use_fixed_slicing()
            return
        chosen = read_slicing_file(file)
        if not self.was_initialized:
            self.initialize()
        chosen.check_fits(self.sliced_network.n_blocks, self.sliced_network.n_dims, file)
        chosen.check_candidates(planned_candidates(self.configuration_manager.network_arch_init_kwargs))
        self.sliced_network.set_slicing(chosen.slicing)
        self.print_to_log_file(f"Slicing from {file} ({chosen.choice.how_chosen}): {listed(chosen.slicing)}")
        if place_of(chosen) != self.place:
            # no error: one slicing for all folds may be meant
            self.print_to_log_file(f"{file} is of {place_of(chosen)}, this training of {self.place}")

    def _use_fixed_slicing(self) -> None:
        if not self.was_initialized:
            self.initialize()
        network = self.sliced_network
        network.set_slicing(fixed_slicing(network.n_blocks, network.n_dims))
        work = ("-d", self.plans_manager.dataset_name, "-c", self.configuration_name, "-f", self.fold)
        chooses = shell_line("slicemamba", "slicing", *work, "-p", self.plans_manager.plans_name, "--set", "VALUE")
        self.print_to_log_file(
            f"Slicing {fixed_in_words(network.n_dims, network.n_blocks)}, the fixed one, since none was "
            f"chosen; '{chooses}' chooses another before a training begins, 'slicemamba run --search' searches one"
        )

    def _check_slicing_file(self) -> None:
        try:
            files = [self.find_slicing()]
        except FileNotFoundError:
            return
        except SeveralSlicingsError as several:
            files = several.files
        trained = self.sliced_network.get_slicing()
        if all(read_slicing_file(file).slicing != trained for file in files):
            listed = " or ".join(map(str, files))
            raise ValueError(
                f"the checkpoint in {self.output_folder} was trained with another slicing than {listed} holds: "
                f"continue with the file it was started with (SLICEMAMBA_SLICING=FILE), or move the folder away to "
                f"train anew"
            )

    def describe_path(self) -> str:
        return f"slicing {listed(self.sliced_network.get_slicing())}"


def place_of(chosen: SlicingFile) -> str:
    """Dataset, plans, configuration and fold that a slicing was chosen for."""
    return " ".join(map(str, (chosen.dataset, chosen.plans_name, chosen.configuration, chosen.fold)))
