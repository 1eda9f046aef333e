"""What the reconciler uses too: the contract of annotations and labels, the Kubernetes API, HTTP servers, logs, flags.

It knows nothing of the rest of the webhook; the reconciler sees nothing else of it.
"""
