"""Processes forked from one that has imported what they need, a server for all tests of a worker."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext

# what the tests of the group "forked" run
PRELOADED = ["tests.search.distributed_search", "tests.trainers.ddp_step"]


def forked() -> ForkServerContext:
    """The context of such processes. They have the environment in which the first of them was started."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context
