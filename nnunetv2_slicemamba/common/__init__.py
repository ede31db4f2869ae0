"""The ground that every other room stands on: files, folders, names, hashes, commands; no nnU-Net."""
