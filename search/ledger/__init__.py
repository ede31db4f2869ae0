"""The durable record of a search's evaluations."""
