"""Every error halp-trt raises on purpose: one sentence with what was found, what was expected and what to do."""

from halp_trt.device.faults import (
    ArtefactError,
    BuildError,
    HalpError,
    InUseError,
    LinkError,
    MeasurementError,
    OutOfMemoryError,
    RuntimeUnavailableError,
    TargetMismatchError,
    UsageError,
)
from halp_trt.texts import printable

__all__ = [
    "ArtefactError",
    "BuildError",
    "DataError",
    "EmptyBatchError",
    "GraphMismatchError",
    "HalpError",
    "InUseError",
    "InfeasibleBudgetError",
    "LinkError",
    "LostProcessError",
    "MeasurementError",
    "MissingLatencyError",
    "ModelError",
    "NewerFileError",
    "NonFiniteError",
    "OutOfMemoryError",
    "PrecisionError",
    "RuntimeUnavailableError",
    "ShareWarning",
    "TargetMismatchError",
    "UnsupportedLayerError",
    "UsageError",
    "brief",
]


def brief(text: str, most: int = 200) -> str:
    """A text in one line, cut to a number of characters and without any that a terminal would obey.

    What a file or another program says may be of any length, and anything may be in it.
    """
    line = printable(" ".join(text[: 4 * most].split()))
    return line if len(line) <= most else f"{line[: most - 3]}..."


class NewerFileError(ArtefactError):
    """A newer halp-trt wrote the file: it is sound, and an upgrade reads it."""


class LostProcessError(HalpError):
    """Another of the processes that train together is gone, or this one was told to end."""


class ModelError(HalpError):
    """A model cannot be found, built, loaded or fed with its example input."""


class DataError(HalpError):
    """A data set is missing, empty or holds a picture that cannot be read."""


class EmptyBatchError(DataError):
    """None of the pictures of a batch can be read, though bad pictures are to be skipped."""


class NonFiniteError(HalpError):
    """Weights, gradients or a loss hold NaN or infinity."""


class UnsupportedLayerError(HalpError):
    """A node of the network is not understood; the message names it."""


class MissingLatencyError(HalpError):
    """A layer's latency is not in the table; a lookup never guesses."""


class GraphMismatchError(HalpError):
    """A plan was made for another network."""


class InfeasibleBudgetError(HalpError):
    """No allowed plan meets the budget; the message names the lowest reachable latency."""


class NotQuietError(HalpError):
    """Other work has all cores on which something was to be timed."""


class PrecisionError(HalpError):
    """An engine does not compute in the number formats that were asked for."""


class ShareWarning(UserWarning):
    """A warning of what one of several processes alone may come to see, such as a picture in its share of a batch."""
