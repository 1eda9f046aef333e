"""What touches the kernel: netlink, BPF objects, the compile in a child process."""
