"""Public datasets, and one's own folders, as nnU-Net raw data."""
