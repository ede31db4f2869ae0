"""The demo: shipped real images through the whole chain."""
