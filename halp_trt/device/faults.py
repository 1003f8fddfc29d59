"""The errors raised on the device itself; ``halp_trt.errors`` exports them beside all others."""


class HalpError(Exception):
    """The root of all errors that a user can mend; the command line prints it and exits with code 2."""


class UsageError(HalpError):
    """An option, a configuration file or a path does not make sense."""


class ArtefactError(HalpError):
    """A file is missing, truncated, of another schema or does not hold what its name promises."""


class InUseError(HalpError):
    """Another process is writing or using what this one is asked to; the message names it."""


class RuntimeUnavailableError(HalpError):
    """A runtime, or the device it needs, is not present on this machine."""


class TargetMismatchError(HalpError):
    """A table, plan or engine was made for another target."""


class BuildError(HalpError):
    """A runtime refused to build an engine or a probe."""


class MeasurementError(HalpError):
    """A measurement failed or cannot be trusted."""


class OutOfMemoryError(MeasurementError):
    """The device has not enough memory for what is measured."""


class LinkError(HalpError):
    """The link to a device is cut, silent, or brings what is no message."""
