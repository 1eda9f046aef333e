"""Errors between the reconciler and the kernel, with messages for the person who must act."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.steps import Step

logger = logging.getLogger(__name__)


class ShapingError(Exception):
    """Shaping one Pod, or all, was not possible."""


class NetnsGoneError(ShapingError):
    """The network namespace no longer exists: the Pod is gone, or its sandbox is being recreated."""


class HostNetnsError(ShapingError):
    """The path leads to the node's own network namespace, which is never touched."""


class NoSlotLeftError(ShapingError):
    """More Pods on this node have limits than there are slots."""


class KernelLacksError(ShapingError):
    """The kernel lacks what shaping needs: a configuration option or module, which the message names."""

    def __init__(self, option: str, message: str) -> None:
        super().__init__(f"{message}; the node's kernel needs {option}")


class StepFailedError(ShapingError):
    """The kernel refused a step."""

    def __init__(self, step: Step, cause: str) -> None:
        super().__init__(f"{step}: {cause}")


class NetlinkError(ShapingError):
    """The kernel's answer to a netlink request: an errno, and its text with that of the extended acknowledgement."""

    def __init__(self, code: int, text: str) -> None:
        self.errno = code
        self.text = text
        super().__init__(f"the kernel's netlink says: {text}")


@contextmanager
def read_back(what: str) -> Iterator[None]:
    """Reads the program's maps, which the kernel may refuse for a moment, as out of memory. Raises ShapingError."""
    try:
        yield
    except OSError as error:
        raise ShapingError(f"cannot read {what} back from the kernel: {error.strerror or error}") from error


def defect(error: Exception) -> ShapingError:
    """What to say of an unforeseen error."""
    return ShapingError(f"a defect of the reconciler, please report it: {error!r}")


@contextmanager
def defects_told() -> Iterator[None]:
    """Turns unforeseen errors into a ShapingError: what a Pod does to its netns must not affect other Pods."""
    try:
        yield
    except ShapingError:
        raise
    except Exception as error:
        logger.exception("a defect in what works on the kernel")
        raise defect(error) from error
