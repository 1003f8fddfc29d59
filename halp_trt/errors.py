"""Every error halp-trt raises on purpose: one sentence with what was found, what was expected and what to do."""


class HalpError(Exception):
    """The root of all errors that a user can mend; the command line prints it and exits with code 2."""


class UsageError(HalpError):
    """An option, a configuration file or a path does not make sense."""


class ArtefactError(HalpError):
    """A file is missing, truncated, of another schema or does not hold what its name promises."""


class ModelError(HalpError):
    """A model cannot be found, built, loaded or fed with its example input."""


class DataError(HalpError):
    """A data set is missing, empty or holds a picture that cannot be read."""


class NonFiniteError(HalpError):
    """Weights, gradients or a loss hold NaN or infinity."""


class UnsupportedLayerError(HalpError):
    """A node of the network is not understood; the message names it."""


class MissingLatencyError(HalpError):
    """A layer's latency is not in the table; a lookup never guesses."""


class TargetMismatchError(HalpError):
    """A table, plan or engine was made for another target."""


class GraphMismatchError(HalpError):
    """A plan was made for another network."""


class InfeasibleBudgetError(HalpError):
    """No allowed plan meets the budget; the message names the lowest reachable latency."""


class RuntimeUnavailableError(HalpError):
    """A runtime, or the device it needs, is not present on this machine."""


class BuildError(HalpError):
    """A runtime refused to build an engine or a probe."""


class PrecisionError(HalpError):
    """An engine does not compute in the number formats that were asked for."""


class MeasurementError(HalpError):
    """A measurement failed or cannot be trusted."""
