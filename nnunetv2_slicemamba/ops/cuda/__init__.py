"""The CUDA backend's kernels: CUDA C++ that is compiled at run time, with no toolkit to install."""
