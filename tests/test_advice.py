"""Every option that a sentence of the package names is one that a verb has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from halp_trt.cli import verbs
from halp_trt.cli.settings import _RENAMED

PACKAGE = Path(__file__).parent.parent / "halp_trt"
FOREIGN = {
    "--exportTimes", "--exportProfile", "--exportLayerInfo", "--dumpProfile", "--shares",
    "--onnx", "--saveEngine", "--loadEngine", "--fp16", "--int8", "--stronglyTyped", "--noTF32",
    "--precisionConstraints",
    "--layerPrecisions", "--profilingVerbosity", "--inputIOFormats", "--outputIOFormats", "--timingCacheFile",
    "--builderOptimizationLevel", "--duration", "--iterations", "--warmUp", "--useCudaGraph", "--noCudaGraph",
    "--noDataTransfers", "--useSpinWait",
}  # fmt: skip
"""Options of trtexec and of tools."""
OPTION = re.compile(r"(?<![\w-])(?<!var\()--[a-zA-Z][\w-]*\w")
OF_A_VERB = re.compile(
    r"\b(?P<verb>[a-z][a-z-]+)(?: (?:with|with a larger|RUN|runs/\S+))? (?P<option>--[a-z][a-z-]*[a-z])"
)


def options() -> Mapping[str, set[str]]:
    """The options of every verb; a verb's own verbs have its name before theirs."""
    context = click.Context(verbs)
    commands = {
        (f"{name} {word}" if word else name): command
        for name, verb in verbs.commands.items()
        for word, command in (verb.commands.items() if isinstance(verb, click.Group) else [("", verb)])
    }
    return {
        name: {
            text
            for one in command.get_params(click.Context(command, parent=context))
            for text in (*one.opts, *one.secondary_opts)
        }
        | {"--help"}
        for name, command in commands.items()
    }


def literals(source: str) -> Iterator[tuple[int, str]]:
    """All texts of a module with their lines; the parts of one in several pieces are put together."""
    tree = ast.parse(source)
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "runs/x" for part in node.values]
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value


def faults(text: str, known: Mapping[str, set[str]]) -> list[str]:
    """Options in a text that no verb has, or that the verb before them has not."""
    everywhere = set().union(*known.values(), FOREIGN, _RENAMED, {"--version"})
    found = [option for option in OPTION.findall(text) if option not in everywhere]
    for match in OF_A_VERB.finditer(text):
        if match["verb"] in known and match["option"] not in known[match["verb"]]:
            found.append(match[0])
    return found


def test_sentences_name_options_that_are_there() -> None:
    known = options()
    found = [
        f"{path.relative_to(PACKAGE)}:{line} names {fault}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, text in literals(path.read_text(encoding="utf-8"))
        for fault in faults(text, known)
        if not text.startswith("--")
    ]
    assert found == []


def test_a_wrong_advice_would_be_found() -> None:
    known = options()
    assert faults("give a fixed --input-shape", known) == ["--input-shape"]
    assert faults("run deploy --weights first", known) == ["deploy --weights"]
    assert faults("choose a larger --batch, or run deploy with --precision fp32", known) == []
