"""Classes: what ``__init__`` builds, and a forward of one line per node."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn

from ..control import Branches, Loop, Scan
from ..module import Input, OnnxModule
from .modules import construction
from .text import INFIX, Functions, identifier, literal

_HEAD = '''\
"""A network as `pcgraph convert` of pcgraph {version} writes it; its weights are beside this file.

`load()` returns it with them. Needs torch{more}.
"""

from __future__ import annotations

from pathlib import Path

import torch
{imports}
'''
_MORE = ", and pcgraph, whose functions compute what torch has no function for"
_LOAD = '''\
def load(weights: str | Path = Path(__file__).with_suffix(".pt")) -> Network:
    """The network with its weights, in evaluation mode."""
    network = Network()
    network.load_state_dict(torch.load(weights, weights_only=True))
    return network.eval()
'''


_WIDTH = 120


def python_source(module: OnnxModule, version: str) -> str:
    """A file that defines ``Network``, a module like this one, and ``load``, which fills it.

    Its state has the names, shapes and types of ``module.state_dict()``, which `load` expects in a file of the same
    name that ends in ``.pt``.

    Args:
        module: from `from_onnx`.
        version: pcgraph's, for the file's first line.

    Raises:
        ValueError: something in it cannot be written; it says what.
    """
    graphs = [inner for inner in module.modules() if isinstance(inner, OnnxModule)]
    called = [node.target for graph in graphs for node in graph.graph.nodes if node.op == "call_function"]
    functions = Functions([*called, *(type(m) for m in module.modules() if isinstance(m, Branches | Loop | Scan))])
    writer = _Writer(functions)
    classes = [*writer.inner(module), writer.written("Network", module, module.provenance.inputs)]
    lines = [
        "from torch import Tensor, nn",
        *(["from torch.nn import functional as F"] if functions.functional else []),
    ]
    own = functions.imports
    imports = "\n".join([*lines, *(["", *own] if own else [])])
    head = _HEAD.format(version=version, more=_MORE if own else "", imports=imports)
    return "\n\n".join([head, *classes, _LOAD])


class _Writer:
    """Writes the classes of one file."""

    def __init__(self, functions: Functions) -> None:
        self.functions = functions
        self.names: dict[OnnxModule, str] = {}  # of the classes of graphs inside of others

    def inner(self, module: nn.Module) -> Iterator[str]:
        """The classes of the graphs inside, innermost first."""
        for child in module.children():
            yield from self.inner(child)
            if isinstance(child, OnnxModule):
                name = f"Graph{len(self.names) + 1}"
                yield self.written(name, child, ())
                self.names[child] = name

    def written(self, name: str, module: OnnxModule, inputs: tuple[Input, ...]) -> str:
        """One class."""
        about = "The network." if name == "Network" else "A graph inside of a node."
        lines = [f"class {name}(nn.Module):", f'    """{about}"""', "", "    def __init__(self) -> None:"]
        lines += [f"        {line}" for line in ("super().__init__()", *_Building(self, module).lines)]
        return "\n".join([*lines, "", *self._forward(module, inputs), ""])

    def _forward(self, module: OnnxModule, inputs: tuple[Input, ...]) -> list[str]:
        names = self._variables(module.graph)
        arguments = [names[node] for node in module.graph.nodes if node.op == "placeholder"]
        annotation = ": Tensor" if inputs else ""
        lines = [f"    def forward({', '.join(['self', *(f'{name}{annotation}' for name in arguments)])}):"]
        for name, known in zip(arguments, inputs, strict=False):
            shape = "any shape" if known.shape is None else [size if size is not None else "?" for size in known.shape]
            lines.append(f"        # {name}: {identifier(str(known.dtype).removeprefix('torch.'))}, {_plain(shape)}")
        for node in module.graph.nodes:
            if node.op == "output":
                lines.append(f"        return {literal(node.args[0], names)}")
            elif node.op != "placeholder":
                lines += _filled(f"        {names[node]} = ", *self._call(node, module, names))
        return lines

    def _variables(self, graph: fx.Graph) -> dict[fx.Node, str]:
        """A name for every node, its own where that is free."""
        taken, names = self.functions.names | set(self.names.values()), {}
        for node in graph.nodes:
            name = base = identifier(node.name)
            number = 0
            while name in taken:
                number += 1
                name = f"{base}_{number}"
            taken.add(name)
            names[node] = name
        return names

    def _call(self, node: fx.Node, module: OnnxModule, names: dict[fx.Node, str]) -> tuple[str, list[str] | None]:
        """What is called and its arguments; an expression and None if nothing is."""
        args = [literal(arg, names) for arg in node.args]
        if node.op == "get_attr":
            return access(module, str(node.target)), None
        if node.target is operator.getitem:
            return f"{args[0]}[{args[1]}]", None
        if node.target in INFIX:
            return f"{args[0]} {INFIX[node.target]} {args[1]}", None
        keywords = [f"{identifier(name)}={literal(value, names)}" for name, value in node.kwargs.items()]
        if node.op == "call_method":
            called, *args = args
            called = f"{called}.{identifier(str(node.target))}"
        elif node.op == "call_module":
            called = access(module, str(node.target))
        else:
            called = self.functions[node.target]  # type: ignore[index]
        return called, [*args, *keywords]


class _Building:
    """The lines of ``__init__`` after the first."""

    def __init__(self, writer: _Writer, root: OnnxModule) -> None:
        self.writer, self.root = writer, root
        self.lines: list[str] = []
        self._tensors: dict[int, str] = {}  # those that have a place, since others may be tied to them
        self._children(root, "")
        self._own_tensors(root, "")

    def _children(self, module: nn.Module, path: str) -> None:
        for name, child in module.named_children():
            inner = f"{path}{name}"
            self.lines.append(_registration(self.root, inner, self._made(child)))
            if type(child) is nn.Module:
                self._children(child, f"{inner}.")
            if not isinstance(child, Branches | Loop | Scan):
                self._own_tensors(child, f"{inner}.")

    def _made(self, module: nn.Module) -> str:
        """The call that makes a module."""
        if type(module) is nn.Module:
            return "nn.ModuleDict()" if is_mapping(module) else "nn.Module()"
        if isinstance(module, Branches | Loop | Scan):
            kind = self.writer.functions[type(module)]
            graphs = [f"{self.writer.names[graph]}()" for graph in module.children()]  # type: ignore[index]
            return f"{kind}({', '.join([*graphs, *(literal(value, {}) for value in module.settings)])})"
        return construction(module)

    def _own_tensors(self, module: nn.Module, path: str) -> None:
        """Tensors of plain modules, those that are another module's as well, and those that do not learn."""
        plain = type(module) is nn.Module or isinstance(module, OnnxModule)
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            place = access(self.root, f"{path}{name}")
            if id(parameter) in self._tensors:
                self._register("register_parameter", path, name, self._tensors[id(parameter)])
                continue
            self._tensors[id(parameter)] = place
            if plain:
                frozen = "" if parameter.requires_grad else ", requires_grad=False"
                self._register("register_parameter", path, name, f"nn.Parameter({_zeros(parameter)}{frozen})")
            elif not parameter.requires_grad:
                self.lines.append(f"{place}.requires_grad_(False)")
        for name, buffer in module.named_buffers(recurse=False):
            if plain:
                self._register("register_buffer", path, name, _zeros(buffer))

    def _register(self, method: str, path: str, name: str, value: str) -> None:
        owner = access(self.root, path.removesuffix(".")) if path else "self"
        self.lines.append(f"{owner}.{method}({literal(name, {})}, {value})")


def _filled(head: str, called: str, arguments: list[str] | None) -> list[str]:
    """A statement, over several lines if one is too long."""
    line = f"{head}{called}" + ("" if arguments is None else f"({', '.join(arguments)})")
    if len(line) <= _WIDTH or not arguments:
        return [line]
    rows = [""]
    for argument in arguments:
        if rows[-1] and len(rows[-1]) + len(argument) > _WIDTH - 16:
            rows.append("")
        rows[-1] += f" {argument}," if rows[-1] else f"{argument},"
    return [f"{head}{called}(", *(f"            {row}" for row in rows), "        )"]


def _zeros(tensor: torch.Tensor) -> str:
    shape = ", ".join(map(str, tensor.shape)) or "()"
    dtype = "" if tensor.dtype == torch.float32 else f", dtype={literal(tensor.dtype, {})}"
    return f"torch.zeros({shape}{dtype})"


def is_mapping(module: nn.Module) -> bool:
    """Whether a plain module is written as `nn.ModuleDict`: it has children such as ``0``."""
    names = [name for name, _ in module.named_children()]
    return any(not name.isidentifier() for name in names) and not set(names) & set(dir(nn.ModuleDict))


def access(root: nn.Module, path: str) -> str:
    """The text that reaches a module or tensor: ``self.layer1["0"].conv``."""
    text, module = "self", root
    for name in path.split("."):
        if name.isidentifier() and not name.startswith("__"):  # which a class would mangle
            text += f".{identifier(name)}"
        elif is_mapping(module) and type(module) is nn.Module and name in module._modules:
            text += f"[{literal(name, {})}]"
        else:
            text = f"getattr({text}, {literal(name, {})})"
        module = getattr(module, name)
    return text


def _registration(root: nn.Module, path: str, made: str) -> str:
    """The line that puts a module in its place."""
    owner, _, name = path.rpartition(".")
    reached = access(root, path)
    if reached.startswith("getattr("):
        return f"{access(root, owner) if owner else 'self'}.add_module({literal(name, {})}, {made})"
    return f"{reached} = {made}"


def _plain(shape: Any) -> str:
    return shape if isinstance(shape, str) else f"[{', '.join(map(str, shape))}]"
