"""The verdict on a case: the compiled model against the plain one, put to several trials."""

from __future__ import annotations

import contextlib
import enum
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

import pcgraph
from pcgraph.errors import CaptureError
from tests.opinfo.cases import Case
from tests.opinfo.observe import Seen, first_difference, step
from tests.opinfo.trials import FIRST, TRIALS, trials_for
from tests.opinfo.values import give, litter, restore

SEED = 7
TRIES = 10  # of plain torch, before a difference is put down to pcgraph
Compile = Callable[[nn.Module], Any]


class Class(enum.StrEnum):
    """What can come out."""

    BITWISE = "bitwise"
    OPAQUE = "bitwise, opaque"  # a vertex learns by autograd on itself alone
    SILENT = "no gradient"  # equal, but nothing learns in plain torch either
    REFUSED = "refused"  # a CaptureError
    WRONG = "wrong"
    ERROR = "error"  # any other exception
    UNSTABLE = "nondeterministic"  # plain torch differs from itself
    SKIPPED = "plain raises"  # plain torch cannot run it, or cannot learn

    @property
    def exact(self) -> bool:
        """Whether this is what pcgraph promises."""
        return self in (Class.BITWISE, Class.OPAQUE, Class.SILENT)

    @property
    def compared(self) -> bool:
        """Whether there is something to compare with."""
        return self not in (Class.UNSTABLE, Class.SKIPPED)


@dataclass(frozen=True)
class Verdict:
    """Class, the reason in words, the number of calls and of captures, and why a program held for one call only."""

    result: Class
    reason: str = ""
    calls: int = 0
    captures: int = 0
    once: str = ""


def judge(case: Case, compiler: Compile = pcgraph.compile) -> Verdict:
    """Run a case on plain torch and compiled, and compare all there is to see."""
    if not case.settled:
        return Verdict(Class.UNSTABLE, "reads memory that was never written")
    with _quiet(), _kernels(case):
        try:
            expected = {FIRST: _plain(case, FIRST)}
            message = _differs_from_itself(case, FIRST)
        except Exception as error:
            return Verdict(Class.SKIPPED, _words(error))
        if message is not None:
            return Verdict(Class.UNSTABLE, message)
        for trial in trials_for(case.name):
            with contextlib.suppress(Exception):  # not every operation is defined everywhere
                expected[trial] = _plain(case, trial)
        return _compiled(case, expected, compiler)


def _plain(case: Case, trial: str) -> Seen:
    built = case.build()
    give(built, TRIALS[trial].values)
    return step(built.model, built, SEED, TRIALS[trial].loss)


def _differs_from_itself(case: Case, trial: str, tries: int = 1) -> str | None:
    """What differs between plain runs that find different bytes in fresh memory, or None."""
    litter(0)
    first = _plain(case, trial)
    for k in range(tries):
        litter(255 * (1 - k % 2))
        message = first_difference(first, _plain(case, trial))
        if message is not None:
            return message
    return None


def _compiled(case: Case, expected: dict[str, Seen], compiler: Compile) -> Verdict:
    """One network put to all trials; every call starts from the same tensors as the plain model's."""
    model = case.build().model
    network, calls, opaque = compiler(model), 0, None
    for trial, seen in expected.items():
        built = case.build()
        restore(model, built.model)
        built = replace(built, model=model)
        give(built, TRIALS[trial].values)
        try:
            calls += 1
            got = step(network, built, SEED, TRIALS[trial].loss)
        except CaptureError as error:
            return Verdict(Class.REFUSED, _words(error), calls)
        except Exception as error:
            return Verdict(Class.ERROR, f"on {trial}: {_words(error)}", calls)
        message = first_difference(seen, got)
        if message is not None and _differs_from_itself(case, trial, TRIES) is None:
            return Verdict(Class.WRONG, f"on {trial}: {message}", calls)
        opaque = opaque or _opaque(network)
    done = (calls, _captures(network), _once(network))
    if opaque is not None:
        return Verdict(Class.OPAQUE, opaque, *done)
    return Verdict(Class.BITWISE if expected[FIRST]["learns"] else Class.SILENT, "", *done)


def _captures(network: Any) -> int:
    return network.cache_info()["captures"] if isinstance(network, pcgraph.PCNetwork) else 0


def _once(network: Any) -> str:
    reasons = network.cache_info()["once"] if isinstance(network, pcgraph.PCNetwork) else ()
    return reasons[0] if reasons else ""


def _opaque(network: Any) -> str | None:
    if _captures(network) == 0:
        return None
    operations = [v.operation for v in network.graph.vertices.values() if v.operation is not None]
    reasons = [op.opaque for op in operations if op.opaque is not None]
    return reasons[0] if reasons else None


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _kernels(case: Case) -> Iterator[None]:
    """Leave oneDNN out where its fused kernel rounds in another order than the operations that it stands for."""
    (enabled, *_) = torch.backends.mkldnn.set_flags(_enabled=torch.backends.mkldnn.is_available() and case.rounds_alike)
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(_enabled=enabled)
