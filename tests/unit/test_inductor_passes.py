"""The passes of the back end inductor over hand-written lines, without its compiler."""

from __future__ import annotations

import torch

from pcgraph.codegen.emit import emit
from pcgraph.codegen.inductor.merge import Merged, merged
from pcgraph.codegen.inductor.proof import objection
from pcgraph.codegen.inductor.regions import Region, gathered, region_of, sunk
from pcgraph.codegen.inductor.repeats import cut
from pcgraph.codegen.inductor.ssa import single_assignment
from pcgraph.codegen.inductor.tanh import tanh
from pcgraph.codegen.lines import Line

aten = torch.ops.aten
T = 21


def recurrent() -> tuple[list[Line], list[tuple[str, ...]]]:
    """Tanh units over T steps, and the gradients of their weights, as a sweep would write them."""
    steps = tuple(f"x{t}" for t in range(T))
    lines = [Line(steps, "%s.unbind(1)", ("x",), (), aten.unbind.int)]
    hidden = "h"
    for t in range(T):
        lines += [
            Line((f"u{t}",), "torch._C._nn.linear(%s, %s, %s)", (f"x{t}", "w", "b"), (), aten.linear.default),
            Line((f"v{t}",), "torch.mm(%s, %s)", (hidden, "r"), (), aten.mm.default),
            Line((f"s{t}",), "%s + %s", (f"u{t}", f"v{t}")),
            Line((f"h{t}",), "torch.tanh(%s)", (f"s{t}",), (), aten.tanh.default),
        ]
        hidden = f"h{t}"
    for n, t in enumerate(reversed(range(T))):
        before = f"h{t - 1}" if t else "h"
        lines += [
            Line((f"c{t}",), "torch.mul(%s, %s)", (f"h{t}", f"u{t}"), (), aten.mul.Tensor),
            Line((f"t{t}",), "torch.t(%s)", (f"c{t}",), (), aten.t.default),
            Line((f"p{t}",), "torch.mm(%s, %s)", (f"t{t}", before), (), aten.mm.default),
            Line((f"q{t}",), "torch.sum(%s, [0], False)", (f"c{t}",), (), aten.sum.dim_IntList),
        ]
        for part, total in (("p", "gr"), ("q", "gb")):
            if n == 1:
                lines.append(Line((total,), "%s + %s", (f"{part}{t + 1}", f"{part}{t}")))
            elif n > 1:
                lines.append(Line((), "%s.add_(%s)", (total, f"{part}{t}")))
    return single_assignment(lines, [(hidden, "gr", "gb")])


ARGUMENTS = [("values", ["x", "h", "w", "b", "r"])]


def values() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((3, T, 2), (3, 4), (4, 2), (4,), (4, 4))
    return [0.5 * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def test_products_over_time_merge_to_the_same_sums() -> None:
    lines, returns = recurrent()
    after = merged(lines, returns)
    assert sum("linear" in line.text for line in after) == 3  # of eight, eight and five steps
    assert sum(line.text.startswith(("torch.mm(%s.t()", "%s.addmm_")) for line in after) == 3
    assert sum(line.text.startswith("torch.cat") for line in after) == 6  # errors once for both sums
    plain = emit("plain", ARGUMENTS, lines, returns).function(values())
    joined = emit("joined", ARGUMENTS, after, returns).function(values())
    for a, b in zip(plain[0], joined[0], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)  # float64: sums in another order


def test_repeated_stretches_share_one_key_and_compute_the_same() -> None:
    lines, returns = recurrent()
    parts = [piece for stretch in gathered(lines) for piece in cut(stretch)]
    assert [line for part in parts for line in part] == lines
    used = {name for group in returns for name in group} | {name for line in lines for name in line.reads}
    keys = [region_of(part, used).canonical()[1] for part in parts]
    assert len(parts) > 3 and len(set(keys)) < len(parts)
    region, _ = region_of(parts[1], used).canonical()
    assert isinstance(region, Region) and set(region.reads) <= {f"a{k}" for k in range(len(region.reads))}


def test_merged_lines_go_to_their_first_reader() -> None:
    stack = Line(("s",), "torch.stack([%s, %s])", ("a", "b"), target=Merged)
    far = [Line((f"y{k}",), "torch.tanh(%s)", ("a",), (), aten.tanh.default) for k in range(3)]
    reader = Line(("z",), "torch.tanh(%s)", ("s",), (), aten.tanh.default)
    assert sunk([[stack], far, [reader]]) == [far, [stack], [reader]]
    write = Line((), "%s.add_(%s)", ("a", "b"))
    assert sunk([[stack], [write], [reader]]) == [[stack], [write], [reader]]


def test_what_a_proof_objects_to() -> None:
    x = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    y = x.exp()

    def exact() -> list[torch.Tensor]:
        return [x.double().exp()]

    assert objection([x], [y], [y * (1 + 2**-23)], exact) is None
    assert "from float64" in (objection([x], [y], [y * 1.0001], exact) or "")
    assert "strides" in (objection([x], [y], [y.t().contiguous().t()], exact) or "")
    assert "an argument itself" in (objection([x], [x.view(4, 4)], [x], lambda: [x.double()]) or "")
    assert "share other memory" in (objection([x], [x.clone()], [x.view(4, 4)], lambda: [x.double()]) or "")
    assert "of another kind" in (objection([x], [y], [y.double()], exact) or "")
    assert "not a rounded number" in (objection([x], [x > 0], [x > 10], lambda: [x > 0]) or "")

    def impossible() -> list[torch.Tensor]:
        raise RuntimeError("no float64 form")

    assert objection([x], [y], [y * (1 + 2**-22)], impossible) is None
    assert "from float64" in (objection([x], [y], [y * 1.001], impossible) or "")


def test_tanh_is_as_close_to_float64_as_the_librarys() -> None:
    x = torch.cat([torch.linspace(-20, 20, 200001), torch.logspace(-30, 0, 20001), torch.tensor([3e38])])
    exact = torch.tanh(x.double())
    gap = (tanh(x).double() - exact).abs()
    library = (torch.tanh(x).double() - exact).abs()
    assert gap.max() < 2.5 * 2**-24 and gap.mean() < 2 * library.mean()
    assert (gap[x != 0] / exact[x != 0].abs()).max() < 4 * 2**-24
    special = torch.tensor([float("inf"), float("-inf"), float("nan"), 0.0])
    torch.testing.assert_close(tanh(special), torch.tanh(special), rtol=0, atol=0, equal_nan=True)
