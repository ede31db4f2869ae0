"""Export of a fold's trained network to one file for other programs: ONNX, TorchScript or PyTorch's own format."""
