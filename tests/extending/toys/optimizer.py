"""An optimiser of one's own: RMSprop, whose smoothing is the setting of momentum."""

from torch.optim import RMSprop

from halp_trt.training.optimizer import OPTIMIZERS


def rmsprop(groups, settings):
    """Returns the optimiser of a training."""
    return RMSprop(groups, lr=settings.learning_rate, alpha=settings.momentum)


OPTIMIZERS["rmsprop"] = rmsprop
