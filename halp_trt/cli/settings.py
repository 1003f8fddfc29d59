"""Every setting that a verb may take, once: the options, ``halp.toml`` and the CLI reference are all made from here."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import click

from halp_trt.errors import UsageError
from halp_trt.planning import METHODS
from halp_trt.runtimes import RUNTIMES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["CONFIG_NAME", "SETTINGS", "Setting", "config_argument", "config_option", "example_toml", "options"]

CONFIG_NAME = "halp.toml"
_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting: an option of the command line and a key of ``halp.toml``.

    Attributes:
        help: what it does.
        default: its value where neither the command line nor the file names it; None leaves the choice to the verb.
        kind: how its text is read.
        is_list: it may be given several times, and is a list in the file.
    """

    help: str
    default: str | int | float | bool | None = None
    kind: click.ParamType[Any] | type = str
    is_list: bool = False


_PATH = click.Path(path_type=Path)
_COUNT = click.IntRange(min=0)
_POSITIVE = click.IntRange(min=1)
_FRACTION = click.FloatRange(min=0, max=1)
_PERCENT = click.FloatRange(0, 100)
_SEED = click.IntRange(min=0, max=2**63 - 1)  # what PyTorch's generators take

SETTINGS: Mapping[str, Setting] = MappingProxyType(
    {
        "model": Setting(
            default="demo",
            help="The network: demo, resnet20, resnet32, resnet56, mobilenetv2-cifar, torchvision:NAME, timm:NAME or "
            "module:factory.",
        ),
        "weights": Setting(kind=_PATH, help="Its trained weights: safetensors, or a PyTorch state dict."),
        "input": Setting(
            help="Its input as CHANNELSxHEIGHTxWIDTH, where the model and the data do not tell: 3x224x224."
        ),
        "classes": Setting(kind=_POSITIVE, help="How many classes it tells apart, where the data do not tell."),
        "data": Setting(
            default="digits",
            help="The pictures: digits, cifar10:PATH, imagefolder:PATH, module:factory, or none.",
        ),
        "on-bad-picture": Setting(
            default="refuse",
            kind=click.Choice(["refuse", "skip"]),
            help="What to do with a picture that cannot be read.",
        ),
        "runtime": Setting(kind=click.Choice(list(RUNTIMES)), help="What runs the engine; picked by what is present."),
        "precision": Setting(
            default="fp32",
            help="Number format of the engine: fp32, tf32, fp16, bf16 or int8, as far as the runtime goes.",
        ),
        "optimization-level": Setting(
            kind=click.IntRange(0, 5),
            help="How hard TensorRT looks for kernels, 0 to 5; the same for table and engine.",
        ),
        "batch": Setting(default=1, kind=_POSITIVE, help="Pictures in one run of the engine."),
        "step": Setting(default=8, kind=_POSITIVE, help="Channels between two measured widths of a layer."),
        "lut": Setting(kind=_PATH, help="The latency table to use; by default the one of this target in luts/."),
        "budget": Setting(
            default="60%", help="What the pruned network may take: a share of the dense latency, or a time."
        ),
        "method": Setting(default="halp", kind=click.Choice(list(METHODS)), help="How channels are chosen."),
        "saliency": Setting(
            default="auto", help="How channels are scored: taylor, magnitude, or auto, taylor where there are data."
        ),
        "steps": Setting(default=5, kind=_POSITIVE, help="Pruning steps on the way to the budget."),
        "minibatches": Setting(default=20, kind=_POSITIVE, help="Training minibatches between two pruning steps."),
        "max-prune": Setting(default=100.0, kind=_PERCENT, help="Percent of a channel group that may go at most."),
        "max-prune-step": Setting(
            default=100.0,
            kind=click.FloatRange(0, 100, min_open=True),
            help="Percent of a channel group's present width that may go in one pruning step.",
        ),
        "train-epochs": Setting(default=8, kind=_COUNT, help="Epochs of training before, where no weights are given."),
        "train-rate": Setting(default=0.1, kind=_FRACTION, help="Peak of the learning rate in that training."),
        "epochs": Setting(default=8, kind=_COUNT, help="Epochs of fine-tuning after the last step."),
        "tune-rate": Setting(default=0.02, kind=_FRACTION, help="Learning rate while pruning and fine-tuning."),
        "train-batch": Setting(default=128, kind=_POSITIVE, help="Pictures in one training step."),
        "distillation": Setting(
            default=0.0, kind=_FRACTION, help="Weight of the dense network's answers while fine-tuning, 0 to 1."
        ),
        "timing-seconds": Setting(
            default=30.0,
            kind=click.FloatRange(min=0),
            help="Seconds that the engines of a pruning step are timed at most, until their ratio is known.",
        ),
        "frozen": Setting(is_list=True, help="Name of a layer whose channels all stay; may be given several times."),
        "on-miss": Setting(
            kind=click.Choice(["measure", "interpolate", "refuse"]),
            help="What to do when a plan needs a width that the table lacks; by default as --refine says.",
        ),
        "refine": Setting(
            default=True,
            kind=bool,
            help="Measure the layers that a plan chose, and plan again; or trust what build-lut interpolated.",
        ),
        "run-dir": Setting(kind=_PATH, help="The folder of this run; by default runs/<model>-<method>-<budget>."),
        "seed": Setting(default=0, kind=_SEED, help="Seed of everything random."),
    }
)


def options(*names: str) -> Callable[[_Command], _Command]:
    """A decorator that gives a verb the named settings as options, in this order."""

    def decorate(command: _Command) -> _Command:
        for name in reversed(names):
            setting = SETTINGS[name]
            command = click.option(
                f"--{name}/--no-{name}" if setting.kind is bool else f"--{name}",
                default=None if setting.is_list else setting.default,
                type=setting.kind,
                multiple=setting.is_list,
                help=setting.help,
                show_default=setting.default is not None,
                metavar=None if not isinstance(setting.kind, click.Path) else "PATH",
            )(command)
        return command

    return decorate


def config_option(command: _Command) -> _Command:
    """Gives a verb ``--config``; the file's settings become the defaults of its options."""
    return click.option(
        "--config",
        type=_PATH,
        is_eager=True,
        expose_value=False,
        callback=_read_defaults,
        help=f"File of settings; by default {CONFIG_NAME} in this folder, where there is one.",
    )(command)


def config_argument(command: _Command) -> _Command:
    """Like :func:`config_option`, as an argument."""
    return click.argument(
        "config", type=_PATH, required=False, is_eager=True, expose_value=False, callback=_read_defaults
    )(command)


def _read_defaults(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    if context.resilient_parsing:
        return
    values = read_config(path or Path(CONFIG_NAME), required=path is not None)
    context.default_map = {name.replace("-", "_"): value for name, value in values.items()}


def read_config(path: Path, *, required: bool) -> dict[str, Any]:
    """The settings in a TOML file, checked; empty where an optional file is missing.

    An empty text leaves a setting that has no default as if it were not there: the example spells them so.

    Raises:
        UsageError: the file is missing, not TOML, or holds an unknown setting or one of the wrong kind.
    """
    if not required and not path.exists():
        return {}
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read the settings in {path}: {error}; check the path, or make one with 'halp-trt init'"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not TOML: {error}; see 'halp-trt init' for an example") from error
    for name, value in values.items():
        _check(path, name, value)
    return {name: value for name, value in values.items() if value != "" or SETTINGS[name].default is not None}


def _check(path: Path, name: str, value: object) -> None:
    if name not in SETTINGS:
        close = difflib.get_close_matches(name, SETTINGS, n=1, cutoff=0.5)
        advice = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(SETTINGS)}"
        raise UsageError(f"{path}: unknown setting {name!r}; {advice}")
    is_list = SETTINGS[name].is_list
    items = value if is_list and isinstance(value, list) else [value]
    is_switch = SETTINGS[name].kind is bool
    fits = isinstance(value, bool) if is_switch else all(_is_plain(item) for item in items)
    if is_list != isinstance(value, list) or not fits:
        expected = "a list of texts" if is_list else "true or false" if is_switch else "one text or number"
        raise UsageError(f"{path}: setting {name!r} is {value!r}; expected {expected}")
    if isinstance(value, float) and isinstance(SETTINGS[name].kind, click.IntRange):  # click would cut it off
        raise UsageError(f"{path}: setting {name!r} is {value!r}; expected a whole number")


def _is_plain(item: object) -> bool:
    return isinstance(item, str | int | float) and not isinstance(item, bool)


def example_toml() -> str:
    """A settings file that names every setting with its default; those without one are commented out."""
    lines = [
        "# Settings of halp-trt: every verb reads them in this folder, options on the command line override them.",
        "",
    ]
    for name, setting in SETTINGS.items():
        lines.append(f"# {setting.help}")
        if setting.is_list:
            lines.append(f"# {name} = []")
        elif setting.default is None:
            lines.append(f'# {name} = ""')
        else:
            text = json.dumps(setting.default)
            lines.append(f"{name} = {text}")
    return "\n".join(lines) + "\n"
