import math
from dataclasses import replace

import pytest

from halp_trt.errors import UsageError
from tests.training.small import SETTINGS


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"batch_size": 0},
        {"num_epochs": -1},
        {"label_smoothing": 1.5},
        {"momentum": 1.0},
        {"update": "newton"},
    ],
)
def test_senseless_settings_are_refused(wrong):
    with pytest.raises(UsageError):
        replace(SETTINGS, **wrong)
