"""CUDA without a GPU, for tests of graphs."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import torch

from nnunetv2_slicemamba.nets import cuda_graphs


class Cuda:
    """Stands in for torch.cuda: graphs whose replay is only counted, so that results stay the recorded ones."""

    def __init__(self, monkeypatch):
        self.recorded, self.replays, self.pools, self.free, self.failing = 0, 0, [], 90, None
        self.pool_handles = 0

        class Graph:
            def capture_begin(_, pool, capture_error_mode):
                assert capture_error_mode == "thread_local"
                if self.failing is not None:
                    raise self.failing
                self.recorded += 1
                self.pools.append(pool)

            def capture_end(_):
                pass

            def replay(_):
                self.replays += 1

        def handle():
            self.pool_handles += 1
            return self.pool_handles

        fake = {
            "CUDAGraph": Graph,
            "Stream": lambda device: SimpleNamespace(wait_stream=lambda other: None),
            "current_stream": lambda: SimpleNamespace(wait_stream=lambda other: None),
            "stream": lambda stream: nullcontext(),
            "current_device": lambda: 0,
            "graph_pool_handle": handle,
            "empty_cache": lambda: None,
            "is_current_stream_capturing": lambda: False,
            "mem_get_info": lambda device: (self.free, 100),
        }
        for name, value in fake.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(cuda_graphs.AutocastState, "context", lambda state: nullcontext())
        cuda_graphs._stream.cache_clear()
