"""The reconciler, one per node: keeps each admitted Pod's kernel state equal to what its annotations ask for."""
