from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from halp_trt.errors import GraphMismatchError
from halp_trt.graphs.weights import with_weights
from tests.graphs.drawing import conv, draw, numbers, run

MODEL = draw(
    [conv("a", "x"), conv("y", "a")],
    {"a.weight": numbers(5, 3, 1, 1), "y.weight": numbers(2, 5, 1, 1, seed=1)},
    inputs={"x": (1, 3, 4, 4)},
    outputs=["y"],
)


def test_named_weights_are_put_in_and_the_rest_stays() -> None:
    before = MODEL.SerializeToString()
    new = numbers(5, 3, 1, 1, seed=7)
    changed = with_weights(MODEL, {"a.weight": new.astype(np.float64), "unknown": numbers(1)})
    assert MODEL.SerializeToString() == before
    values = {t.name: numpy_helper.to_array(t) for t in changed.graph.initializer}
    assert values["a.weight"].dtype == np.float32
    np.testing.assert_array_equal(values["a.weight"], new)
    np.testing.assert_array_equal(values["y.weight"], numbers(2, 5, 1, 1, seed=1))
    x = numbers(1, 3, 4, 4, seed=3)
    (found,) = run(changed, {"x": x})
    expected = np.einsum("oi,nihw->nohw", values["y.weight"][..., 0, 0] @ new[..., 0, 0], x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_transposed_view_is_as_good_as_an_array() -> None:
    new = numbers(3, 5, 1, 1, seed=7).transpose(1, 0, 2, 3)
    (tensor, _) = with_weights(MODEL, {"a.weight": new}).graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), new)


def test_another_shape_is_refused() -> None:
    with pytest.raises(GraphMismatchError, match=r"'a.weight' have shape \(4, 3, 1, 1\), .* expects \(5, 3, 1, 1\)"):
        with_weights(MODEL, {"a.weight": numbers(4, 3, 1, 1)})
