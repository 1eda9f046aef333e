"""The NRI plugin: what the container runtime tells of Pods before their containers start."""
