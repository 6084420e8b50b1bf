"""What people put on tensors."""

from __future__ import annotations

from typing import Any

import torch


def marks(tensor: torch.Tensor) -> dict[str, Any]:
    """The attributes of a tensor by name, without the notes that torch.compile leaves on its inputs.

    >>> x = torch.zeros(2)
    >>> x.note, x._dynamo_dynamic_indices = "pixels", {0}
    >>> marks(x)
    {'note': 'pixels'}
    """
    attributes = vars(tensor)
    if not attributes:
        return attributes
    return {name: value for name, value in attributes.items() if not name.startswith("_dynamo_")}
