"""How large every tensor of an exported graph becomes, before onnxruntime makes any of them.

Two small constants can multiply to a tensor that fills the machine. The graph's operators are few and all its shapes
are fixed, so the sizes can simply be added up.
"""

from collections.abc import Callable
from math import prod

from edgehmn.runtime.onnx_file import Contents, Node

MAX_VALUES = 1 << 28  # of all tensors of one step; a model of a gigabyte has a fifth of that

Shape = tuple[int, ...]


def check_shapes(contents: Contents, inputs: dict[str, Shape]) -> None:
    """inputs: shapes of the graph's inputs. Raises ValueError where shapes do not fit or the tensors are too large."""
    shapes = contents.shapes | inputs
    total = 0
    for node in contents.nodes:
        if node.op not in RULES:
            raise ValueError(f"operator '{node.op:.40}' is none that edgehmn writes")
        missing = [name for name in node.inputs if name not in shapes]
        if missing or not node.inputs:
            raise ValueError(f"its node '{node.name:.60}' has no input {missing[:1]}")
        try:
            results = RULES[node.op](node, [shapes[name] for name in node.inputs], contents)
        except (IndexError, KeyError) as e:
            raise ValueError(f"its node '{node.name:.60}' has no shape") from e
        if len(results) != len(node.outputs):
            raise ValueError(f"its node '{node.name:.60}' has {len(node.outputs)} outputs, not {len(results)}")
        shapes |= zip(node.outputs, results, strict=True)
        total += sum(map(prod, results))
        if total > MAX_VALUES:
            raise ValueError(f"its tensors have more than {MAX_VALUES} values")


def _same(_node: Node, shapes: list[Shape], _contents: Contents) -> list[Shape]:
    return [shapes[0]]


def _broadcast(_node: Node, shapes: list[Shape], _contents: Contents) -> list[Shape]:
    return [_joint(shapes[0], shapes[1])]


def _joint(a: Shape, b: Shape) -> Shape:
    rank = max(len(a), len(b))
    pairs = zip((1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b, strict=True)
    out = []
    for x, y in pairs:
        if x != y and 1 not in (x, y):
            raise ValueError(f"its shapes {a} and {b} do not fit")
        out.append(y if x == 1 else x)
    return tuple(out)


def _product(_node: Node, shapes: list[Shape], _contents: Contents) -> list[Shape]:
    a, b = shapes[:2]
    if len(a) < 2 or len(b) < 2 or a[-1] != b[-2]:
        raise ValueError(f"its shapes {a} and {b} cannot be multiplied")
    return [(*_joint(a[:-2], b[:-2]), a[-2], b[-1])]


def _quantised(_node: Node, shapes: list[Shape], _contents: Contents) -> list[Shape]:
    return [shapes[0], (), ()]


def _joined(node: Node, shapes: list[Shape], _contents: Contents) -> list[Shape]:
    axis = node.axis(len(shapes[0]))
    length = sum(shape[axis] for shape in shapes)
    return [(*shapes[0][:axis], length, *shapes[0][axis + 1 :])]


def _parts(node: Node, shapes: list[Shape], _contents: Contents) -> list[Shape]:
    axis = node.axis(len(shapes[0]))
    return [(*shapes[0][:axis], length, *shapes[0][axis + 1 :]) for length in node.integers["split"]]


def _taken(node: Node, shapes: list[Shape], _contents: Contents) -> list[Shape]:
    axis = node.axis(len(shapes[0]))
    return [(*shapes[0][:axis], *shapes[1], *shapes[0][axis + 1 :])]


def _reduced(node: Node, shapes: list[Shape], _contents: Contents) -> list[Shape]:
    if node.integers["axes"] != [-1] or node.integers["keepdims"] != [1]:
        raise ValueError(f"its node '{node.name:.60}' reduces another axis than the last")
    return [(*shapes[0][:-1], 1)]


def _reshaped(node: Node, shapes: list[Shape], contents: Contents) -> list[Shape]:
    shape = contents.integers[node.inputs[1]]
    if min(shape, default=1) < 1 or prod(shape) != prod(shapes[0]):
        raise ValueError(f"its node '{node.name:.60}' makes {shape} of {shapes[0]}")
    return [shape]


RULES: dict[str, Callable[[Node, list[Shape], Contents], list[Shape]]] = {
    **dict.fromkeys(("Abs", "Cast", "Clip", "Round", "Sigmoid", "Softmax", "Sqrt"), _same),
    **dict.fromkeys(("Add", "Div", "Mul", "Sub"), _broadcast),
    **dict.fromkeys(("MatMul", "MatMulInteger"), _product),
    **dict.fromkeys(("ReduceMax", "ReduceMean"), _reduced),
    "Concat": _joined,
    "DynamicQuantizeLinear": _quantised,
    "Gather": _taken,
    "Reshape": _reshaped,
    "Split": _parts,
}
