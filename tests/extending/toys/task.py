"""A task of one's own: how bright is a picture? Targets are no whole numbers, and less of the score is better."""

import numpy as np
from torch.nn.functional import mse_loss

from halp_trt.specs import Score
from halp_trt.tasks import TASKS


class Brightness:
    def __init__(self, data):
        self.name = data.name

    def loss(self, outputs, targets, settings, taught=None):
        return mse_loss(outputs["brightness"][:, 0], targets)

    def predict(self, outputs):
        return outputs["brightness"][:, 0]

    def metric(self, answers):
        errors = np.concatenate([np.asarray(found) - np.asarray(targets) for found, targets in answers])
        value = float(np.sqrt((errors**2).mean()))
        return Score(name="error", value=value, unit="cd", num_examples=len(errors), higher_is_better=False)


TASKS["brightness"] = Brightness
