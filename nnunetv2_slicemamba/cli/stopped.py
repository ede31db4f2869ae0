"""What is said when a command is stopped: what is kept, and which command goes on."""

from __future__ import annotations

import os
import sys

from nnunetv2_slicemamba.common.console import PlainConsole
from nnunetv2_slicemamba.common.names import WITHIN_VARIABLE
from nnunetv2_slicemamba.common.shell import shell_line
from nnunetv2_slicemamba.common.stopping import STOP_SIGNALS, exit_code

# of commands that keep something
KEPT = {
    "convert": "the cases that are written are kept",
    "plan": "the fingerprint and the configurations that are preprocessed are kept",
    "run": "finished steps and finished epochs are kept",
    "demo": "finished steps and finished epochs are kept",
    "pretrain": "the last saved step is kept",
    "search": "the evaluations that are done are kept",
    "evaluate": "the cases that are done are kept",
    "compare": "finished trainings and finished epochs are kept",
    "holdout": "the folds that are done are kept",
    "slicing": "the folds that are done are kept",
    "rank": "the architectures that are evaluated are kept",
}
STOPPED = tuple(exit_code(number) for number in STOP_SIGNALS)


def tell_stopped(command: str | None) -> None:
    """Says in one sentence what a stopped command keeps and what goes on; nothing within a command of ours.

    That one says it. command: name of the subcommand.
    """
    if WITHIN_VARIABLE in os.environ:
        return
    again = shell_line("slicemamba", *sys.argv[1:])
    kept = KEPT.get(command or "")
    said = f"Stopped: {kept}, and this goes on: {again}" if kept else f"Stopped; this begins anew: {again}"
    PlainConsole(stderr=True).print(said)
