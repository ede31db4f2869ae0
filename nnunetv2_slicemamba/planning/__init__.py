"""Planning: experiment planners, the memory model, preprocessing, and what a command works on."""
