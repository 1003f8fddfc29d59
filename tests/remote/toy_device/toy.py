"""A runtime that measures texts: a model says what it takes, and what becomes of the process that measures it.

``12.5`` has that latency. ``12.5 crash`` dies by a signal each time, ``12.5 crash once`` the first time alone; so do
``hang``, ``memory`` and ``refuse``. ``TOY_FOLDER`` holds a file for every attempt; ``mode`` in it is the power mode.
"""

import os
import signal
import sys
import time
from pathlib import Path

from halp_trt.device.faults import BuildError


class Toy:
    def __init__(self, runtime, folder):
        self.folder = os.environ["TOY_FOLDER"]

    def target(self, precision, batch_size):
        path = os.path.join(self.folder, "mode")
        mode = Path(path).read_text() if os.path.exists(path) else "15W"
        return {"device": "toy", "precision": precision, "batch_size": batch_size, "power_mode": mode}

    def measure(self, order, reference, models):
        for model in models:
            us, *words = model.decode().split()
            attempts = self.count(model)
            time.sleep(float(os.environ.get("TOY_SECONDS", "0")))
            if words and (words[1:] != ["once"] or attempts == 1):
                self.fail(words[0])
            sys.stdout.write("noise on the standard output\n")
            yield [{"latency_us": float(us)}]

    def count(self, model):
        """The number of attempts at a model, this one counted: a line for each in one file."""
        with open(os.path.join(self.folder, "attempts"), "ab") as file:
            file.write(model + b"\n")
        with open(os.path.join(self.folder, "attempts"), "rb") as file:
            return file.read().splitlines().count(model)

    def fail(self, word):
        if word == "crash":
            sys.stderr.write("a library says its last words\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGSEGV)
        if word == "hang":
            time.sleep(1000)
        if word == "memory":
            raise MemoryError
        if word == "refuse":
            raise BuildError("the toy refuses node 7; change it")
