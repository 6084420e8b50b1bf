"""Traces as tables and arrays of other libraries, which are imported only here and only when asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import PCGraphError

if TYPE_CHECKING:
    from .trace import Trace


def totals(trace: Trace) -> dict[str, list[float] | list[int]]:
    """What there is one number of per step: name -> [T+1]."""
    found: dict[str, list[float] | list[int]] = {"energy": trace.energies, "loss": trace.losses, "active": trace.active}
    return found | ({"distance": trace.distance} if trace.distance else {})


def to_pandas(trace: Trace) -> Any:
    """A DataFrame with a row per value node and step: t, value, depth, and energy and norm where they were recorded.

    The totals of the steps are rows of the value ``""``, without a depth; they have a loss, active and distance too.

    Raises:
        PCGraphError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise PCGraphError("to_pandas needs pandas", hint="pip install pandas") from None
    whole = pandas.DataFrame({"t": range(trace.steps + 1), "value": "", **totals(trace)})
    frames = [whole]
    for name in dict.fromkeys([*trace.vertex_energies, *trace.norms]):
        columns: dict[str, Any] = {"t": range(trace.steps + 1), "value": name, "depth": trace.depth_of(name)}
        if name in trace.vertex_energies:
            columns["energy"] = trace.vertex_energies[name]
        if name in trace.norms:
            columns["norm"] = trace.norms[name]
        frames.append(pandas.DataFrame(columns))
    return pandas.concat(frames, ignore_index=True)


def to_xarray(trace: Trace) -> Any:
    """A Dataset over t.

    Totals by name; ``vertex_energy`` (vertex, t) and ``norm`` (value, t) with the coordinate ``depth``; and recorded
    errors and values of each node as ``error:name`` and ``value:name``, whose other dimensions are ``name_0``, ...

    Raises:
        PCGraphError: xarray is not installed.
    """
    try:
        import xarray
    except ImportError:
        raise PCGraphError("to_xarray needs xarray", hint="pip install xarray") from None
    variables: dict[str, Any] = {name: ("t", numbers) for name, numbers in totals(trace).items()}
    coordinates: dict[str, Any] = {"t": range(trace.steps + 1)}
    for what, dimension, series in (("vertex_energy", "vertex", trace.vertex_energies), ("norm", "value", trace.norms)):
        if series:
            variables[what] = ((dimension, "t"), list(series.values()))
            coordinates[dimension] = list(series)
            coordinates[f"{dimension}_depth"] = (dimension, [trace.depth_of(name) for name in series])
    for what, tensors in (("error", trace.errors), ("value", trace.values)):
        for name, steps in tensors.items():
            dimensions = ["t", *(f"{name}_{k}" for k in range(steps[0].dim()))]
            variables[f"{what}:{name}"] = (dimensions, [step.detach().cpu().numpy() for step in steps])
    return xarray.Dataset(variables, coordinates, {"rule": str(trace.rule), "coordinates": trace.coordinates})


def write(trace: Trace, writer: Any, tag: str = "inference") -> None:
    """Scalars for TensorBoard: ``tag/energy`` and so on, a point per step, and a histogram of each recorded error.

    Args:
        trace: to be written.
        writer: a `torch.utils.tensorboard.SummaryWriter`, or anything with `add_scalar` and `add_histogram`.
        tag: in front of all names.
    """
    for name, numbers in totals(trace).items():
        for t, number in enumerate(numbers):
            writer.add_scalar(f"{tag}/{name}", number, t)
    for what, series in (("energies", trace.vertex_energies), ("norms", trace.norms)):
        for name, steps in series.items():
            for t, number in enumerate(steps):
                writer.add_scalar(f"{tag}/{what}/{name}", number, t)
    for name, errors in trace.errors.items():
        for t, error in enumerate(errors):
            writer.add_histogram(f"{tag}/errors/{name}", error, t)
