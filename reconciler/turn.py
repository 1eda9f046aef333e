"""One reconciler a node: a second one waits until the first has ended, however that ends.

Two would each give a free slot to another Pod, and each would repair what the other does. In an update that overlaps,
the second is loaded by the time the first is gone. The sign is a name in the abstract namespace of Unix sockets
(unix(7)), which is the network namespace's, here the host's, and which the kernel takes back with the process.
"""

import asyncio
import errno
import logging
import socket
from typing import Final

NAME: Final = "ipvlan-bandwidth-reconciler"
_LOG: Final = logging.getLogger(__name__)
_ASK_AGAIN_S: Final = 0.1


async def take_turn(stopping: asyncio.Event, *, name: str = NAME) -> socket.socket | None:
    """Wait for the turn. Close what is returned to give it back; None when `stopping` was set before it came."""
    told = False
    while not stopping.is_set():
        holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            holder.bind(f"\0{name}")
        except OSError as error:
            holder.close()
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return holder
        if not told:
            _LOG.warning("another reconciler works on this node: waiting for its end")
            told = True
        try:
            await asyncio.wait_for(stopping.wait(), _ASK_AGAIN_S)
        except TimeoutError:
            continue
    return None
