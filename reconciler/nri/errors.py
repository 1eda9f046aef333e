"""What the protocol's modules raise about the other side."""


class ProtocolError(Exception):
    """The runtime sent bytes that are no NRI, or more than a plugin should hold in memory.

    The connection's state is unknown from then on, so the only remedy is to close it and connect again, upon which the
    runtime replays all Pods. Its message says which layer found what.
    """
