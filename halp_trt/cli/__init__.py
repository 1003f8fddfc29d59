"""The command line: options become values, values go into one call, the result is printed."""

from halp_trt.cli.verbs import verbs

__all__ = ["main", "verbs"]


def main() -> None:
    """The entry point of ``halp-trt``."""
    verbs()
