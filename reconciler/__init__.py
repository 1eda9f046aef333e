"""One a node: keeps what the kernel holds for each admitted Pod equal to what its annotations ask for."""
