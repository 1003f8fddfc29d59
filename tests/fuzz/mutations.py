"""Changes to valid files that keep most of their structure: values, keys, numbers, nesting, lines and bytes."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

Random = random.Random

RAW = "@@raw"
"""The opening of a text in place of which its rest stands in the file, as it is."""
DEEP = 3000
TEXTS = (
    "", " ", "a", "x" * 100_000, "\ud800", "\0", "a\0b", "../../../../etc/passwd", "/dev/zero", "ä€\U0001f600",
    "\u202e", "nan", "1e999", "-1", "fp7", "halp-trt/latency-table/1", "2026-13-45T99:99:99", "a=b", "%s{}{0}", "'\"\\",
    "\x1b[2J\x1b]0;title\x07", "\r\nerror: ", "::error::", "<script>alert(1)</script>",
)  # fmt: skip
NUMBERS = (
    0, -0.0, 1, -1, 2, 0.5, 7.5, 1e-320, 1e15, 1e16, 1e100, 1e300, 1.7e308, -1e300, 2**31, 2**53 + 1, 2**63 - 1, 2**63,
    -(2**63) - 1, 10**30, 10**400, True, False,
)  # fmt: skip
RAWS = ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" * 5000, "[" * DEEP + "]" * DEEP, "'a'", "", "nul", "{")


def mutated_json(value: Any, rng: Random) -> bytes:
    """The text of a JSON value with a few changes; now and then its bytes are changed, too."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        value = _changed(value, rng)
    data = as_text(value).encode("utf-8", "surrogatepass")
    return mutated_bytes(data, rng) if rng.random() < 0.05 else data


def as_text(value: Any) -> str:
    """JSON in which marked texts stand raw."""
    return re.sub(rf'"{RAW}(?:[^"\\]|\\.)*"', lambda found: json.loads(found[0]).removeprefix(RAW), json.dumps(value))


def mutated_bytes(data: bytes, rng: Random) -> bytes:
    """Some bytes, cut, flipped, filled in or recoded."""
    at, length = rng.randrange(len(data) + 1), rng.choice((1, 2, 4, 8, 100, 5000))
    kind = rng.randrange(10)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + data[at + length :]
    if kind == 2:
        return data[:at] + rng.randbytes(length) + data[at:]
    if kind == 3:
        return data[:at] + data[at : at + length] * rng.choice((2, 50)) + data[at + length :]
    if kind in (4, 5):
        return _flipped(data, rng)
    if kind == 6:
        return rng.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\0" * 100, b"\n", b" " * 5000)) + data
    if kind == 7:
        return data + rng.choice((b"\xef\xbb\xbf", b"\0", b"\n\n", b"{", b"garbage", data))
    if kind == 8:
        return data.decode("latin-1").encode(rng.choice(("utf-16", "utf-32", "utf-8")))
    return rng.choice((b"", b"\n", b"\0", b"{}", b"[]", b"null", b"0", rng.randbytes(300)))


def _flipped(data: bytes, rng: Random) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def mutated_lines(data: bytes, rng: Random) -> bytes:
    """JSON lines of which some changed, moved, were lost or torn."""
    lines = data.splitlines()
    kind = rng.randrange(8)
    if kind < 5:
        at = rng.choice((0, len(lines) - 1, rng.randrange(len(lines)), rng.randrange(len(lines))))
        lines[at] = mutated_json(json.loads(lines[at]), rng)
    elif kind == 5:
        del lines[rng.randrange(len(lines))]
    elif kind == 6:
        lines.insert(rng.randrange(len(lines) + 1), rng.choice([*lines, b"", b"null", b"{}", b"xx"]))
    else:
        return mutated_bytes(data, rng)
    return b"\n".join(lines) + rng.choice((b"\n", b"\n", b"", b"\n\n"))


# ---- values ---------------------------------------------------------------------------------------------------------


def _changed(value: Any, rng: Random) -> Any:
    """A value with one change somewhere inside: each depth is as likely as another."""
    places = list(_places(value))
    if not places:
        return junk(rng)
    depth = rng.choice(sorted({depth for depth, _, _ in places}))
    _, holder, key = rng.choice([place for place in places if place[0] == depth])
    rng.choice(_CHANGES)(holder, key, rng)
    return value


def _places(value: Any, depth: int = 0) -> Iterator[tuple[int, Any, Any]]:
    """Every place in a value as ``(depth, holder, key)``; of long lists a few entries."""
    if isinstance(value, dict):
        items: list[tuple[Any, Any]] = list(value.items())
    elif isinstance(value, list):
        items = [*enumerate(value)][:4] + [*enumerate(value)][4:][-2:]
    else:
        return
    for key, item in items:
        yield depth, value, key
        yield from _places(item, depth + 1)


def junk(rng: Random) -> Any:
    """Something else than was there."""
    kind = rng.randrange(8)
    if kind < 2:
        return rng.choice(NUMBERS)
    if kind == 2:
        return RAW + rng.choice(RAWS)
    if kind in (3, 4):
        return rng.choice(TEXTS)
    return rng.choice(
        (None, [], {}, [None], [[]], {"float": "nan"}, {"float": "inf"}, {"float": []}, {"a": 1}, [1] * 9)
    )


def _replace(holder: Any, key: Any, rng: Random) -> None:
    holder[key] = junk(rng)


def _retype(holder: Any, key: Any, rng: Random) -> None:
    """The same in another type, or nearly the same."""
    value = holder[key]
    if isinstance(value, bool):
        holder[key] = rng.choice((int(value), str(value), not value))
    elif isinstance(value, int | float):
        others = (
            -value,
            value * 1000,
            value / 3,
            value + 1,
            value - 1,
            float(value),
            str(value),
            [value],
            10**20 * value,
        )
        holder[key] = rng.choice(others)
    elif isinstance(value, str):
        holder[key] = rng.choice(
            (value * 2, value[:-1], [value], {value: value}, value.upper(), value + rng.choice(TEXTS))
        )
    elif isinstance(value, list):
        holder[key] = rng.choice(
            (value[:-1], value[::-1], value * 2, value * 300, [value], dict.fromkeys("ab", value), value[:1])
        )
    elif isinstance(value, dict):
        holder[key] = rng.choice(([*value.items()], [value], list(value), {**value, "more": 1}, {"inner": value}))
    else:
        _replace(holder, key, rng)


def _plausible(holder: Any, key: Any, rng: Random) -> None:
    """Another value that the type lets through: what comes after reading has to cope with it."""
    value = holder[key]
    if isinstance(value, bool):
        holder[key] = not value
    elif isinstance(value, int):
        holder[key] = rng.choice((0, 1, 2, 3, 7, 8, 64, 1000, 2 * value, value - 1, value + 1, 2**20, 2**31 - 1))
    elif isinstance(value, float):
        holder[key] = rng.choice((0.0, 1e-300, 1e-9, 0.5, 1.0, 3.0, value / 7, 10 * value, 1e6, 1e14, 1e99, -value))
    elif isinstance(value, str):
        holder[key] = rng.choice(
            ("", "a", "input", "stem", "body", "Conv", "Gemm", "fp16", "fraction", value * 2, "ü" * 300)
        )
    elif isinstance(value, list):
        holder[key] = rng.choice(([], value[:1], value[1:], value[::-1], value * 2, value[:-1]))
    elif isinstance(value, dict):
        for name in [*value][rng.randrange(len(value) + 1) :]:
            del value[name]


def _remove(holder: Any, key: Any, rng: Random) -> None:
    del holder[key]


def _rename(holder: Any, key: Any, rng: Random) -> None:
    if isinstance(holder, dict):
        holder[rng.choice((*TEXTS, str(key) + "s"))] = holder.pop(key)
    else:
        holder.append(copy.deepcopy(holder[key]))


def _repeat(holder: Any, key: Any, rng: Random) -> None:
    """A key twice in one object, or an entry twice."""
    if isinstance(holder, dict):
        pair = f"{json.dumps(key)}: {json.dumps(holder[key])}"
        if RAW not in pair:
            holder[key] = f"{RAW}{json.dumps(holder[key])}, {pair}"
    else:
        holder.insert(key, copy.deepcopy(holder[key]))


def _swap(holder: Any, key: Any, rng: Random) -> None:
    """A value from elsewhere in the same holder."""
    other = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    holder[key], holder[other] = holder[other], holder[key]


_CHANGES: tuple[Callable[[Any, Any, Random], None], ...] = (
    *(_replace, _replace, _replace, _retype, _retype, _retype, _plausible, _plausible, _plausible, _plausible),
    *(_remove, _rename, _repeat, _swap),
)
