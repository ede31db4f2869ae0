"""Planning: SliceMamba's experiment planners, memory model and preprocessing."""
