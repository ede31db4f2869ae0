"""Export of trained networks: one as ONNX, TorchScript or PyTorch's own format, or a model as a zip for nnU-Net."""
