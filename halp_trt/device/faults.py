"""The errors raised on the device itself; ``halp_trt.errors`` exports them beside all others."""


class HalpError(Exception):
    """The root of all errors that a user can mend; the command line prints it and exits with code 2."""


class UsageError(HalpError):
    """An option, a configuration file or a path does not make sense."""


class RuntimeUnavailableError(HalpError):
    """A runtime, or the device it needs, is not present on this machine."""


class MeasurementError(HalpError):
    """A measurement failed or cannot be trusted."""
