"""Verbs that are stopped in every way, as a program: libraries of other tests may have spoilt a process for signals."""

from __future__ import annotations

import signal

import click

from halp_trt.cli.interrupts import heeding_requests
from halp_trt.cli.output import VerbGroup, stops_with
from halp_trt.errors import ArtefactError
from halp_trt.interrupts import interrupts_held_back


@click.group(cls=VerbGroup)
def group() -> None: ...


def swallow(number: int = signal.SIGINT) -> None:
    """Takes Ctrl-C, or another request to end, for an error of a file, as a library might."""
    try:
        signal.raise_signal(number)  # handled here and now, whatever thread there is besides
    except BaseException:
        raise ArtefactError("the file is damaged") from None


@group.command()
def plain() -> None:
    swallow()


@group.command()
def saved() -> None:
    with stops_with("all rows are saved"):
        swallow()


@group.command()
def mixed_up() -> None:
    try:
        swallow()
    except ArtefactError:
        raise RuntimeError("an assertion of C++") from None


@group.command()
@click.pass_context
def terminated(ctx: click.Context) -> None:
    with heeding_requests(ctx):
        try:
            swallow(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)  # once is enough


@group.command()
@click.pass_context
def hung_up(ctx: click.Context) -> None:
    with heeding_requests(ctx), stops_with("all rows are saved"):
        swallow(signal.SIGHUP)


@group.command()
@click.pass_context
def under_nohup(ctx: click.Context) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with heeding_requests(ctx):
        signal.raise_signal(signal.SIGHUP)
    click.echo("went on")
    with heeding_requests(ctx):
        pass
    signal.raise_signal(signal.SIGTERM)


@group.command()
def full() -> None:
    raise MemoryError


@group.command()
def full_of_rows() -> None:
    with stops_with("all rows are saved"):
        raise RuntimeError("std::bad_alloc")


@group.command()
def broken() -> None:
    with stops_with("all rows are saved"):
        raise RuntimeError("a fault of ours")


@group.command()
@click.pass_context
def held_back(ctx: click.Context) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with heeding_requests(ctx):
            try:
                with interrupts_held_back():
                    signal.raise_signal(number)
                    click.echo("known")
            except KeyboardInterrupt:
                click.echo("raised")
    with interrupts_held_back():
        click.echo("known")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs the tests may ignore it
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    try:
        group()
    finally:
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
