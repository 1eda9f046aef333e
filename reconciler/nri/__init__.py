"""The NRI plugin: the container runtime's events about Pods, before their containers start."""
