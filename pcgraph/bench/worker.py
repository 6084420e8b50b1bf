"""One model, all its contenders, in one process: check, race, weigh. Talks to `run` by plain dictionaries."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch

import pcgraph

from ..errors import PCGraphError
from ..measure import peak_memory, race
from .check import NotRun, Seen, see
from .clock import Read, clock
from .contenders import Contender, Makers, compile_options
from .models import Workload
from .names import AGAIN, BASE

Say = Callable[[dict[str, Any]], None]
FEWEST_ROUNDS = 7
WARM_UPS = 3
SLOW = 5.0  # a contender slower than so many steps of backprop does not run in every round
WEIGHED = 2.0  # seconds; the profiler's records of a longer step can fill the memory


@dataclass(frozen=True)
class Task:
    """What to measure.

    Attributes:
        build: makes the workload; travels to another process.
        contenders: keys of `names.CONTENDERS` that take part, `BASE` among them.
        device: ``cpu``, ``cuda``, ``mps``.
        threads: of torch.
        rounds: of the race, at most.
        seconds: of the race; `FEWEST_ROUNDS` are run in any case, and what does not run in every round is not counted.
        limit: seconds that a contender may take to be made and checked, and for one step.
        il_steps: T of inference learning.
        seed: of random states and of the shuffling.
        left_out: contenders that failed in an earlier process, and why.
    """

    build: Callable[[], Workload]
    contenders: tuple[str, ...]
    device: str = "cpu"
    threads: int = 1
    rounds: int = 200
    seconds: float = 20.0
    limit: float = 120.0
    il_steps: int = 20
    seed: int = 0
    left_out: dict[str, str] = field(default_factory=dict)


def work(task: Task, say: Say) -> None:
    """Measure; what is found out is said at once.

    Messages: ``{"at": key, "doing": what}`` before something that may take long, ``{"not run": key, "why": text}``,
    ``{"ready": key, "check": verdict, "first": seconds, ...}``, ``{"round": {key: {clock: seconds}}}``,
    ``{"peak": key, "bytes": n}``, ``{"failed": text}`` and at the end ``{"done": True}``.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(task.threads)
    try:
        _work(task, say)
    except (NotRun, PCGraphError) as error:
        say({"failed": str(error)})
    finally:
        torch.set_num_threads(threads)
    say({"done": True})


def _work(task: Task, say: Say) -> None:
    device = torch.device(task.device)
    say({"at": BASE, "doing": "building"})
    workload = task.build().to(device)
    read = clock(device)
    ready = _prepare(task, workload, read, say)
    steps = {key: _step(workload, contender) for key, contender in ready.items()}
    taken = _warm_up(task, steps, read, say)
    if BASE not in taken:
        return
    base = taken[BASE]
    every = {key: max(1, round(seconds / (SLOW * base))) for key, seconds in taken.items()}
    racing = {key: steps[key] for key in taken}
    say({"at": None, "doing": "racing"})
    spent = 0.0
    with closing(race(racing, task.rounds, read, every=every, seed=task.seed)) as rounds:
        for k, one in enumerate(rounds, 1):
            say({"round": one})
            spent += sum(one[key]["wall"] for key in one if every[key] == 1)
            if k >= FEWEST_ROUNDS and spent > task.seconds:
                break
    for key in taken:
        if taken[key] < WEIGHED and device.type in ("cpu", "cuda"):  # nothing tells of a peak on others
            say({"at": key, "doing": "weighing"})
            say({"peak": key, "bytes": peak_memory(_without_gradients(workload, steps[key]))})


def _prepare(task: Task, workload: Workload, read: Read, say: Say) -> dict[str, Contender]:
    """Make every contender and hold it against backprop."""
    wanted, draws = _backprop(task, workload)
    makers = Makers(workload, draws=draws, il_steps=task.il_steps, limit=task.limit, seed=task.seed)
    # pcgraph is equal to what it runs: one step per time, not the fused kernel.
    mine = wanted if workload.unrolled is None else see(workload, makers.make("unrolled").learn, task.seed)
    ready: dict[str, Contender] = {}
    warm: set[str] = set()
    for key in task.contenders:
        if key in task.left_out or (key == "unrolled" and workload.unrolled is None):
            continue
        say({"at": key, "doing": "checking"})
        try:
            _warm_tools(key, warm)
            begin = time.perf_counter()
            contender = makers.make(key)
            found = see(workload, contender.learn, task.seed)
            first = time.perf_counter() - begin
            verdict = contender.check(found, wanted if contender.network is None else mine)
        except NotRun as error:
            say({"not run": key, "why": str(error)})
            continue
        except Exception as error:
            if key == BASE:
                raise
            say({"not run": key, "why": f"{type(error).__name__}: {_first_line(error)}"})
            continue
        ready[key] = contender
        say({"ready": key, "check": verdict, "first": first, **_graph(contender)})
    return ready


def _backprop(task: Task, workload: Workload) -> tuple[Seen, bool]:
    """What eager backprop does, and whether random numbers are drawn in it."""
    learn = Makers(workload, draws=False, il_steps=0, limit=task.limit, seed=task.seed).make(BASE).learn
    wanted = see(workload, learn, task.seed)
    torch.manual_seed(task.seed)
    return wanted, not torch.equal(torch.get_rng_state(), wanted.random)


def _warm_up(task: Task, steps: dict[str, Callable[[], None]], read: Read, say: Say) -> dict[str, float]:
    """Seconds of a step, by contender; those that take too long are left out."""
    taken: dict[str, float] = {}
    for key, step in steps.items():
        say({"at": key, "doing": "warming up"})
        try:
            seconds = [read(step)["wall"]]
            while len(seconds) < WARM_UPS and sum(seconds) < task.limit / 10:
                seconds.append(read(step)["wall"])
        except NotRun as error:
            say({"not run": key, "why": str(error)})
            continue
        taken[key] = min(seconds)
        if taken[key] > task.limit:
            say({"not run": key, "why": f"over limit: one step takes {taken.pop(key):.0f} s"})
    return taken


def _step(workload: Workload, contender: Contender) -> Callable[[], None]:
    """A whole training step. What `learn` returns is freed inside, as its graph is part of the cost."""
    learn: Callable[[], object] = contender.step or contender.learn
    if workload.lr is None or contender.step is not None:

        def step() -> None:
            learn()

        return step
    optimizer = torch.optim.SGD(workload.model.parameters(), lr=workload.lr)

    def step_with_update() -> None:
        learn()
        optimizer.step()

    return step_with_update


def _without_gradients(workload: Workload, step: Callable[[], None]) -> Callable[[], None]:
    """A step that begins without gradients and frees its own: they count as part of it."""
    workload.model.zero_grad(set_to_none=True)

    def weighed() -> None:
        step()
        workload.model.zero_grad(set_to_none=True)

    return weighed


def _graph(contender: Contender) -> dict[str, Any]:
    if contender.network is None:
        return {}
    graph = contender.network.graph
    return {"vertices": graph.summary()["vertices"], "depth": graph.steps, "stages": contender.network.timings}


def _warm_tools(key: str, warm: set[str]) -> None:
    """What a compiler imports and tries out at its first use is not part of compiling this model."""
    kinds = set()
    if key == "torch.compile" or (key.startswith("inductor") and "backend" in compile_options()):
        kinds.add("inductor")
    if key not in ("torch.compile", BASE, AGAIN, "unrolled"):
        kinds.add("pcgraph")
    for kind in kinds - warm:
        tiny, x = torch.nn.Linear(1, 1), torch.zeros(1, 1)
        if kind == "inductor":
            inductor: Any = importlib.import_module("torch._inductor.config")
            inductor.force_disable_caches = True  # what an earlier run compiled would be found on disk
            torch.compile(tiny)(x).sum().backward()
        else:
            pcgraph.compile(tiny)(x).sum().backward()
    warm |= kinds


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else "no message"
