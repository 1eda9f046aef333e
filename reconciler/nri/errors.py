"""What the protocol's modules raise about the other side."""


class ProtocolError(Exception):
    """The runtime sent bytes that are no NRI, or more than a plugin should hold in memory.

    The connection's state is unknown from then on, so the only remedy is to close it and connect again; the runtime
    then replays all Pods. The error's message says which layer found what.
    """
