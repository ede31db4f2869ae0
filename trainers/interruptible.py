"""Trainings that may be ended at any moment: no finished epoch is lost, and no two trainings share a folder."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_slicemamba.common.checkpoint_names import ALL, LATEST
from nnunetv2_slicemamba.common.folder_lock import in_use
from nnunetv2_slicemamba.common.stopping import (
    end_at_once,
    end_forked_processes_with_this_one,
    exit_code,
    handling_signals,
    interruptible,
)
from nnunetv2_slicemamba.common.whole_file import replacing, sweep
from nnunetv2_slicemamba.planning.plans_name import require_file_of_own_name
from nnunetv2_slicemamba.trainers.earlier_training import refuse_finished, set_aside_unfinished
from nnunetv2_slicemamba.trainers.finished_epoch import FinishedEpoch

_FAILED = 128  # what a process that must end with an error tells the others, in place of a signal's number


class InterruptibleTraining(nnUNetTrainer):
    """nnU-Net's trainer, which answers SIGTERM, Ctrl-C and a closed terminal by saving.

    It ends after the iteration at work with exit code 143, 130 or 129, and checkpoint_latest.pth is that of the last
    finished epoch: `--c` goes on as if nothing had been. Several processes all end after the next iteration. A second
    signal ends it at once. Checkpoints are written whole. The fold's folder is locked, and plans whose file has another
    name than they have inside are refused. A training that begins at epoch 0 is refused beside a finished one, and sets
    the checkpoints of an unfinished one aside when it writes its own first.
    """

    asked: int | None = None  # the signal that asked this process to end
    in_epochs = False  # before the first epoch there is nothing to save
    ends_epoch = latest_is_due = False
    begins_anew = False  # and has not written a checkpoint yet
    was_finished = False  # before it was continued
    failure: Exception | None = None  # the error with which this process ends the training
    agreement: Any = None  # the processes of a training on several GPUs

    @cached_property
    def finished_epoch(self) -> FinishedEpoch:
        """The state as the last epoch that this process has finished left it; empty before the first."""
        return FinishedEpoch()

    def run_training(self) -> None:
        self._check_plans_name()
        self.begins_anew = self.current_epoch == 0
        self.was_finished = self.current_epoch >= self.num_epochs
        if self.begins_anew and self.output_folder is not None:
            refuse_finished(Path(self.output_folder))
        end_forked_processes_with_this_one()
        self.agreement = dist.new_group(backend="gloo") if self.is_ddp else None
        with self._alone(), handling_signals(self._ask_to_stop):
            try:
                super().run_training()
            except Exception:
                # the signal may have reached a process that makes batches, too
                if self.asked is None or self.is_ddp:
                    raise
                self.stop(self.asked)
            finally:
                self.in_epochs = False
                self._let_loaders_end()
        if self.asked is not None:
            raise SystemExit(exit_code(self.asked))

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        with self._alone(), interruptible():
            super().perform_actual_validation(save_probabilities)

    def _let_loaders_end(self) -> None:
        # nnU-Net's end with their object; at the end of the process, their thread takes the end of theirs for a fault
        for name in ("dataloader_train", "dataloader_val"):
            if isinstance(getattr(self, name), (MultiThreadedAugmenter, NonDetMultiThreadedAugmenter)):
                setattr(self, name, None)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Context in which no other training or search works in the fold's folder."""
        with ExitStack() as stack:
            if self.output_folder is not None and self.local_rank == 0:
                folder = Path(self.output_folder)
                stack.enter_context(in_use(folder))
                sweep(folder)
                for name in ALL:  # of a version that named them so
                    folder.joinpath(f"{name}.tmp").unlink(missing_ok=True)
            yield

    def _check_plans_name(self) -> None:
        if self.preprocessed_dataset_folder_base is None:
            return
        folder = Path(self.preprocessed_dataset_folder_base)
        if not require_file_of_own_name(self.plans_manager.plans, folder):
            name = self.plans_manager.plans_name
            self.print_to_log_file(f"{folder} has no file with the plans of this training; results are those of {name}")

    def _ask_to_stop(self, number: int) -> None:
        if self.asked is not None:
            end_at_once(number)
        if not self.in_epochs:
            raise SystemExit(exit_code(number))
        self.asked = number

    def on_epoch_start(self) -> None:
        self.in_epochs = True
        self.stop_if_asked()
        super().on_epoch_start()

    def train_step(self, batch: dict) -> dict:
        highest = self.ask_all()
        result = super().train_step(batch)
        self.stop_if_asked(highest)
        return result

    def validation_step(self, batch: dict) -> dict:
        highest = self.ask_all()
        result = super().validation_step(batch)
        self.stop_if_asked(highest)
        return result

    def on_epoch_end(self) -> None:
        self.ends_epoch, self.latest_is_due = True, False
        super().on_epoch_end()
        self.ends_epoch = False
        # nnU-Net counts the epoch already
        self.current_epoch -= 1
        if self.latest_is_due:
            self.save_checkpoint(str(Path(self.output_folder) / LATEST))
        if self.agreement is None or self.local_rank == 0:
            self.keep_epoch()
        self.current_epoch += 1

    def keep_epoch(self) -> None:
        """Keeps the state of the epoch that has just ended, as a checkpoint would hold it."""
        self.finished_epoch.keep(self)

    def save_checkpoint(self, filename: str) -> None:
        if self.ends_epoch and Path(filename).name == LATEST:
            # nnU-Net writes it before it knows whether the epoch is the best so far, and a training that goes on from
            # it would take a worse one for the best
            self.latest_is_due = True
            return
        if self.was_finished and Path(filename).exists():
            # the same training in other bytes: a search would not know its supernet again, which it knows by its hash
            return
        # nnU-Net writes in place: a kill while writing would lose the only checkpoint
        writes = self.local_rank == 0 and not self.disable_checkpointing
        if writes and self.begins_anew:
            self._set_earlier_aside()
        with replacing(filename) if writes else nullcontext(filename) as target:
            super().save_checkpoint(str(target))

    def on_train_end(self) -> None:
        if self.disable_checkpointing and self.local_rank == 0:
            # nnU-Net deletes checkpoint_latest.pth here, also where it has written nothing in its place
            self._set_earlier_aside()
        super().on_train_end()

    def _set_earlier_aside(self) -> None:
        self.begins_anew = False
        aside = set_aside_unfinished(Path(self.output_folder))
        if aside is not None:
            self.print_to_log_file(f"the checkpoints of an earlier training, which had not ended, are now in {aside}")

    def ask_all(self) -> Callable[[], int]:
        """Begins to ask all processes for the signals that asked them to end, and goes on meanwhile.

        The function that it returns waits for the highest signal, 0 for none, _FAILED for an error. All come here
        equally often.
        """
        agreement = self.agreement
        if agreement is None or not self.in_epochs:
            return lambda: self.asked or 0
        highest = torch.tensor(_FAILED if self.failure else self.asked or 0)
        message = dist.all_reduce(highest, dist.ReduceOp.MAX, group=agreement, async_op=True)

        def wait() -> int:
            message.wait()
            return int(highest)

        return wait

    def stop_if_asked(self, highest: Callable[[], int] | None = None) -> None:
        """Ends the training if a signal or an error asks one of its processes to. highest: as `ask_all`, its default.

        Several processes ask before a step, which need not wait for the answer then, and end after the step behind that
        of the signal or the error.
        """
        number = (highest or self.ask_all())()
        if number == _FAILED:
            self.raise_failure()
        if number and self.in_epochs:
            self.stop(number)

    def fail(self, error: Exception) -> None:
        """Ends the training with an error: at once, or of several processes all, after the next step."""
        self.failure = error
        if self.agreement is None:
            self.raise_failure()

    def raise_failure(self) -> NoReturn:
        """Logs and raises the error of the first process that has one, in all processes."""
        own, self.failure = self.failure, None
        errors = [own]
        if self.agreement is not None:
            errors *= dist.get_world_size(self.agreement)
            dist.all_gather_object(errors, own, group=self.agreement)
        error = next(one for one in errors if one is not None)
        self.print_to_log_file(error)
        raise error

    def stop(self, number: int) -> NoReturn:
        """Writes the checkpoint of the last finished epoch, if this process has finished one, and ends the process."""
        where = f"stopped by {signal.Signals(number).name} in epoch {self.current_epoch}"
        if self.disable_checkpointing:
            self.print_to_log_file(f"{where}; checkpoints are switched off")
        elif not self.finished_epoch.content:
            self.print_to_log_file(f"{where}, the first since the training began or went on: there is nothing to save")
        elif self.local_rank == 0:
            with self.finished_epoch.in_place_of_the_present(self):
                self.save_checkpoint(str(Path(self.output_folder) / LATEST))
            self.print_to_log_file(f"{where}; {LATEST} has the last finished epoch, --c goes on from it")
        self.close_batches()
        if self.agreement is not None:
            # the first of them to end has nnU-Net end the others
            dist.barrier(group=self.agreement)
        raise SystemExit(exit_code(number))

    def close_batches(self) -> None:
        """Ends the processes that make batches, where they do not end with this one by themselves."""
