"""``python -m halp_trt``: the same as ``halp-trt``."""

from halp_trt.cli import main

if __name__ == "__main__":
    main()
