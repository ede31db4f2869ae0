"""Ground of all rooms: files, folders, names, hashes, versions, commands; imports neither PyTorch nor nnU-Net."""
