"""Low memory for one scheduled graph: look at its lines, and choose what to keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .budget import choose
from .cost import Costs
from .economy import Economy
from .prediction import Prediction
from .rematerialise import Rematerialisation, settings_line

if TYPE_CHECKING:
    from .stitch import Stitched, Stitcher
    from .sweep import SegmentLines


def economise(net: Stitcher, predicted: Stitched, learning: Sequence[SegmentLines]) -> Rematerialisation:
    """What the prediction keeps if memory is to be low.

    Args:
        net: names and kinds of all vertices.
        predicted: the prediction.
        learning: if everything is kept, by segment.
    """
    return choose(economy_of(net, predicted, learning))


def economy_of(net: Stitcher, predicted: Stitched, learning: Sequence[SegmentLines]) -> Economy:
    """A step of a scheduled graph, in bytes and seconds."""
    sealed = {vertex.name for vertex in net.graph.vertices.values() if not vertex.differentiable}
    sealed.update(net.recomputation.of)
    sealed.update(name for name, local in net.plan().items() if local.opaque is not None)
    prediction = Prediction(net, predicted.parts, sealed, Costs())
    arriving = [{f"arriving{k}": net.contiguous[k] for k in outputs} for outputs in net.outputs_of]
    return Economy(prediction, list(reversed(learning)), list(reversed(arriving)))


def remembering(predicted: Stitched) -> Stitched:
    """The prediction, which remembers the settings that it runs under."""
    if not predicted.parts:
        return predicted
    first, *others = predicted.parts
    first = replace(first, lines=(settings_line(), *first.lines), setup=first.setup + 1)
    return replace(predicted, parts=(first, *others))
