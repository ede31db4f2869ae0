"""Runs a training in a process of its own: its memory is measured or capped, and nothing of it is left for the next."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


def in_a_process(function: Callable[..., dict[str, Any]], arguments: tuple[Any, ...], seconds: float) -> dict[str, Any]:
    """function(*arguments), or {"ok": False, "error": one line} where that failed, died or took too long.

    In a fork, which starts without imports, or, where CUDA cannot be used in one, in a new process.
    """
    result = _in_a_process("fork", function, arguments, seconds)
    if "initializ" in result.get("error", ""):
        result = _in_a_process("spawn", function, arguments, seconds)
    return result


def _answer(connection: Connection, function: Callable[..., dict[str, Any]], *arguments: Any) -> None:
    try:
        connection.send(function(*arguments))
    except Exception as error:
        connection.send({"ok": False, "error": f"{type(error).__name__}: {error}".splitlines()[0]})


def _in_a_process(
    method: str, function: Callable[..., dict[str, Any]], arguments: tuple[Any, ...], seconds: float
) -> dict[str, Any]:
    context: Any = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(theirs, function, *arguments))
    process.start()
    theirs.close()
    result: dict[str, Any] = {"ok": False, "error": f"not done after {seconds:.0f} s"}
    try:
        if ours.poll(seconds):
            result = ours.recv()
    except EOFError:
        result = {"ok": False, "error": "the process died"}
    if process.is_alive():
        process.join(5)
        process.kill()
    process.join()
    return result
