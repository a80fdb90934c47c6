"""What a certificate says, as frozen records (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

FLOAT64_LIMIT = 1e-12
FOLD_LIMIT = 1e-13

SCOPE = (
    "The bounds hold for each block alone, for inputs of the block inside its box that are numbers of that precision, "
    "for any order of summation, with or without fused multiply-add, subnormals kept or flushed to zero. "
    "They do not hold for Winograd or FFT convolutions, which compute other products. Source: Higham, Accuracy and "
    "Stability of Numerical Algorithms, section 3.1."
)
TRUST = (
    "Hashes find corruption and mistakes. Nothing here is signed: who can change the checkpoint can write a "
    "certificate for it as well."
)


@dataclass(frozen=True)
class Algebra:
    """One identity that a block rests on, and where it is from."""

    name: str
    formula: str
    source: str


@dataclass(frozen=True)
class Precondition:
    """Something that has to be so for the algebra to be exact, whether it is, and what was looked at."""

    name: str
    holds: bool
    why: str


@dataclass(frozen=True)
class Operation:
    """One operation of the training form: ``value`` is computed from the values ``reads``.

    ``tensors`` says under which name of the state dict each tensor lies; one that the code computes has the name
    ``computed:NODE``. ``numbers`` holds stride, padding, dilation, groups, eps and the like.
    """

    value: str
    kind: str
    module: str
    reads: tuple[str, ...]
    tensors: dict[str, str] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Term:
    """One summand of a block in the training form: ``factor`` times ``value``."""

    value: str
    factor: float


@dataclass(frozen=True)
class TensorHash:
    """A tensor of the folded layer: its shape, and the SHA-256 of its little-endian bytes in both precisions."""

    shape: tuple[int, ...]
    float64_sha256: str
    float32_sha256: str


@dataclass(frozen=True)
class FoldedLayer:
    """The one layer that a block became. ``bias`` is None where it has none.

    The hashes are of an elementwise float64 computation from the tensors of the state dict, the same bytes on every
    machine. ``recomputed`` says that the layer was computed so; otherwise the hashes are of what the passes made.
    """

    kind: str
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    weight: TensorHash
    bias: TensorHash | None
    recomputed: bool


@dataclass(frozen=True)
class Box:
    """Per input channel the least and the largest value that the bounds are for; shape () where there are none."""

    lower: tuple[float, ...]
    upper: tuple[float, ...]


@dataclass(frozen=True)
class Rounding:
    """How far the block may be from its exact value where it is computed in one precision.

    ``bounds`` has one entry per output channel: the accumulation, ``gamma * (|W| * |x| + |b|)`` with
    ``gamma = n*u / (1 - n*u)`` over the box, plus rounding the weights, ``|dW| * |x| + |db|``, and underflow. Only
    float32 keeps them; ``worst_bound`` is the largest, None where ``n*u`` reaches 1 and it says nothing.
    ``roundings`` is n: the products of one output, and one for a bias. ``overflows`` is whether a sum inside the box
    can leave the range of the precision.
    """

    precision: str
    unit_roundoff: float
    roundings: int
    gamma: float | None
    bounds: tuple[float, ...]
    worst_bound: float | None
    weight_rounding: float
    largest_sum: float
    overflows: bool


@dataclass(frozen=True)
class Measured:
    """What was measured on seeded inputs inside the box, its corners included, with zero padding at the borders.

    ``float64_error`` is the largest difference of training form and folded layer over the largest value, both in
    float64. ``fold_error`` is the same between the passes' weights and those recomputed. ``float32_error`` is the
    largest difference in float32, in the block's own unit, and ``share_of_bound`` the most that any channel used of
    its bound.
    """

    float64_error: float
    fold_error: float
    float32_error: float
    share_of_bound: float


@dataclass(frozen=True)
class Block:
    """One folded or merged block of the network."""

    name: str
    kind: str
    modules: tuple[str, ...]
    source: str
    algebra: tuple[Algebra, ...]
    operations: tuple[Operation, ...]
    terms: tuple[Term, ...]
    preconditions: tuple[Precondition, ...]
    layer: FoldedLayer
    box: Box
    float32: Rounding
    float16: Rounding
    measured: Measured

    def faults(self) -> tuple[str, ...]:
        """Return what keeps this block from being certified; nothing for a good one."""
        found = [f"{one.name}: {one.why}" for one in self.preconditions if not one.holds]
        if not self.measured.float64_error <= FLOAT64_LIMIT:
            found.append(f"float64 error {self.measured.float64_error:.3g} exceeds {FLOAT64_LIMIT:g}")
        if not self.measured.fold_error <= FOLD_LIMIT:
            found.append(f"the passes' weights differ by {self.measured.fold_error:.3g}, more than {FOLD_LIMIT:g}")
        if not self.measured.share_of_bound <= 1:
            found.append(f"the float32 error is {self.measured.share_of_bound:.3g} of the bound")
        if self.float32.overflows:
            found.append("a sum inside the box can overflow float32")
        return tuple(found)


@dataclass(frozen=True)
class Certificate:
    """The certificate of one network: what it was made from, and its blocks in the order of the graph.

    It holds no time, path or machine. ``samples`` names what the boxes were observed on, with the SHA-256 of the
    input values; ``widening`` says how the boxes were made from that.
    """

    recipe: str
    recipe_sha256: str
    checkpoint_sha256: str
    input_shapes: tuple[tuple[int, ...], ...]
    samples: dict[str, str]
    widening: str
    blocks: tuple[Block, ...]
    scope: str = SCOPE
    trust: str = TRUST

    def faults(self) -> tuple[str, ...]:
        """Return what keeps the network from being certified, block by block."""
        return tuple(f"{block.name}: {fault}" for block in self.blocks for fault in block.faults())

    @property
    def passed(self) -> bool:
        """Whether every block holds."""
        return not self.faults()


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it was recorded. ``where`` is a block's name, or empty for the whole file."""

    where: str
    what: str
    recorded: str
    found: str


@dataclass(frozen=True)
class CertificateCheck:
    """What became of checking a certificate against a checkpoint."""

    recipe: str
    certificate_sha256: str
    checkpoint_sha256: str
    blocks: int
    differences: tuple[Difference, ...]
    certificate: Certificate = field(repr=False)

    @property
    def passed(self) -> bool:
        """Whether everything is as recorded and every block holds."""
        return not self.differences
