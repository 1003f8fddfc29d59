"""A forward pass that stops before every product with some weights, so that they may change before it goes on.

Layers are refitted one after another, each to what the refitted ones before it compute. Without stops that would take a
forward pass for every layer; with them it takes one in all. A pass is a thread: it and its caller take turns, so that
nothing happens at the same time, and the results are the same every time.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from halp_trt.models.repair.products import Product, product_of

__all__ = ["Walk"]


class _Closed(BaseException):
    """The end of a pass that nobody needs any more."""


class Walk:
    """The forward pass of one batch, without gradients.

    The module is copied but for its tensors, since a module may keep what it computes until its pass is over.
    """

    def __init__(self, module: nn.Module, pictures: torch.Tensor, stops: Mapping[int, str]) -> None:
        """Prepares a pass; nothing is computed before :meth:`advance`.

        Args:
            module: the network, in evaluation mode.
            pictures: the batch, on its device; the pass may write into it.
            stops: names of the weights to stop at, by the ``id`` of their tensors.
        """
        shared = {id(tensor): tensor for own in (module.parameters(), module.buffers()) for tensor in own}
        self._module, self._pictures = copy.deepcopy(module, dict[int, Any](shared)), pictures
        self._stops = stops
        self._going, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._found: tuple[str, Product] | None = None
        self._answer: torch.Tensor | None = None
        self._error: BaseException | None = None
        self._is_over = self._is_closed = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def advance(self, answer: torch.Tensor | None = None) -> tuple[str, Product] | None:
        """Goes on to the next product.

        Args:
            answer: the output of the product where the pass stands, if the caller has computed it.

        Returns:
            The weight's name and the product, not yet computed; None at the end of the pass.

        Raises:
            Exception: as the network's forward pass.
        """
        if self._is_over:
            return None
        self._found, self._answer = None, answer
        self._going.release()
        self._stopped.acquire()
        if self._error is not None:
            raise self._error
        return self._found

    def close(self) -> None:
        """Ends the pass where it stands."""
        if not self._is_over:
            self._is_closed = True
            self._going.release()
            self._thread.join()

    def _run(self) -> None:
        try:
            self._wait()
            with torch.no_grad(), _Stops(self):
                self._module(self._pictures)
        except _Closed:
            pass
        except BaseException as error:  # raised again where the caller waits
            self._error = error
        finally:
            del self._module, self._pictures
            self._found, self._is_over = None, True
            self._stopped.release()

    def _wait(self) -> None:
        self._going.acquire()
        if self._is_closed:
            raise _Closed

    def stop(self, product: Product) -> torch.Tensor:
        """The output of a product, after a stop where its weight is one to stop at."""
        name = self._stops.get(id(product.weight))
        if name is None:
            return product.call()
        self._found = (name, product)
        self._stopped.release()
        self._wait()
        answer, self._answer = self._answer, None
        return product.call() if answer is None else answer


class _Stops(TorchFunctionMode):
    """A context in which a pass stops; modes are a thread's own."""

    def __init__(self, walk: Walk) -> None:
        super().__init__()
        self._walk = walk

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls a function of PyTorch, after a stop where one is due."""
        product = product_of(func, args, kwargs or {})
        return func(*args, **(kwargs or {})) if product is None else self._walk.stop(product)
