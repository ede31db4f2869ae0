"""Demo: shipped real images through every step, from plans to the report."""
