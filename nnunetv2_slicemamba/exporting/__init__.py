"""A fold's trained network as one file for other programs: ONNX, TorchScript or PyTorch's exported program."""
