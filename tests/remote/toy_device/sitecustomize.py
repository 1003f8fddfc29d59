"""Run by the toy device's Python before everything: the agent finds a work of the tests, and a clock that jumps."""

import importlib.util
import os
import sys
import time


class Finder:
    """Finds ``halp_trt.toy`` beside this file."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "halp_trt.toy":
            return None
        return importlib.util.spec_from_file_location(name, os.path.join(os.path.dirname(__file__), "toy.py"))


sys.meta_path.insert(0, Finder)

if os.environ.get("TOY_JUMPS"):
    real, asked = time.time, [0]

    def jumping() -> float:
        """The wall clock, a day ahead and a day behind in turns."""
        asked[0] += 1
        return real() + (86_400 if asked[0] % 2 else -86_400)

    time.time = jumping
