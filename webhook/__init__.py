"""Admission of Pods: validates and normalises bandwidth annotations, injects the network of the namespace."""
