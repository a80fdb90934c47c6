"""What may be wrong about the preprocessing inside a file: each mistake that is often made, as a rule on pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploykit.recipe import Input
from deploykit.verification.resampling import Geometry, Picture, fitted, other_placements, other_resizes
from deploykit.vocab import ColorOrder

Channels = NDArray[np.float64]
Normalise = Callable[[Picture], Picture]

# torchvision's documented statistics of ImageNet, RGB, for pixels from 0 to 1.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FULL = 255.0
_SWAPPED = "the channels are swapped (RGB and BGR)"


@dataclass(frozen=True)
class Preprocessing:
    """One way from RGB pixels (H, W, 3) to the network's input (1, 3, h, w); ``name`` says what is wrong about it."""

    name: str
    geometry: Geometry
    swapped: bool
    normalise: Normalise

    def __call__(self, image: NDArray[np.uint8], spec: Input) -> NDArray[np.float32]:
        """Return the tensor that the network would see."""
        picture = self.geometry(image.astype(np.float64))
        if (spec.color_order is ColorOrder.BGR) != self.swapped:
            picture = picture[:, :, ::-1]
        values = self.normalise(picture)
        return np.ascontiguousarray(values.transpose(2, 0, 1)[None].astype(np.float32))


def recipe_preprocessing(spec: Input, *, resizes: bool) -> Preprocessing:
    """Return the recipe's own; with ``resizes``, the picture comes at another size than the network's."""
    mean, scale = channels_of(spec)
    return Preprocessing("as the recipe says", geometry_of(spec, resizes), False, lambda x: (x - mean) * scale)


def hypotheses(spec: Input, *, resizes: bool) -> tuple[tuple[Preprocessing, ...], tuple[Preprocessing, ...]]:
    """Return every other preprocessing that is tested: with a single mistake, and with swapped channels beside it."""
    mean, scale = channels_of(spec)
    right = geometry_of(spec, resizes)
    placements = {**(other_resizes(spec) if resizes else {}), **_after(right, other_placements())}
    normalisations = _normalisations(spec)

    def of_recipe(x: Picture) -> Picture:
        return (x - mean) * scale

    single = (
        Preprocessing(_SWAPPED, right, True, of_recipe),
        *(Preprocessing(name, right, False, rule) for name, rule in normalisations.items()),
        *(Preprocessing(name, geometry, False, of_recipe) for name, geometry in placements.items()),
    )
    double = tuple(Preprocessing(f"{_SWAPPED}, and {name}", right, True, rule) for name, rule in normalisations.items())
    return single, double


def measured(
    spec: Input, mean: Channels | None, scale: Channels | None, *, swapped: bool, resizes: bool
) -> Preprocessing:
    """Return the recipe's preprocessing with another mean, scale or both, named with the values found."""
    own_mean, own_scale = channels_of(spec)
    found = [
        f"the {word} is {_listed(value)} instead of {_listed(own)}"
        for word, value, own in (("mean", mean, own_mean), ("scale", scale, own_scale))
        if value is not None
    ]
    name = ", and ".join([_SWAPPED] * swapped + found)
    used_mean, used_scale = own_mean if mean is None else mean, own_scale if scale is None else scale
    return Preprocessing(name, geometry_of(spec, resizes), swapped, lambda x: (x - used_mean) * used_scale)


def _listed(values: Channels) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def geometry_of(spec: Input, resizes: bool) -> Geometry:
    """Return how a picture comes to the network's size: by the recipe's rule, or not at all."""
    return (lambda x: fitted(x, spec)) if resizes else (lambda x: x)


def _after(first: Geometry, then: dict[str, Geometry]) -> dict[str, Geometry]:
    def composed(second: Geometry) -> Geometry:
        return lambda x: second(first(x))

    return {name: composed(second) for name, second in then.items()}


def channels_of(spec: Input) -> tuple[Channels, Channels]:
    """Return the recipe's mean and scale, one value a channel, in the network's order of channels."""
    mean = np.broadcast_to(np.asarray(spec.mean, np.float64), 3)
    return mean, np.broadcast_to(np.asarray(spec.scale, np.float64), 3)


def _normalisations(spec: Input) -> dict[str, Normalise]:
    """Return the rules for values that differ from ``(x - mean) * scale``, by name."""
    mean, scale = channels_of(spec)
    order = -1 if spec.color_order is ColorOrder.BGR else 1
    imagenet_mean = FULL * np.array(IMAGENET_MEAN)[::order]
    imagenet_scale = 1 / (FULL * np.array(IMAGENET_STD)[::order])
    common = float(scale.mean())
    return {
        "the division by 255 is missing, the mean is subtracted": lambda x: (x - mean) * scale * FULL,
        "the division by 255 is missing before a mean of 0 to 1": lambda x: (x - mean / FULL) * scale * FULL,
        "pixels are divided by 255 once too often, before the mean": lambda x: (x / FULL - mean) * scale,
        "values are divided by 255 once too often": lambda x: (x - mean) * scale / FULL,
        "no mean is subtracted": lambda x: x * scale,
        "the mean is added": lambda x: (x + mean) * scale,
        "the mean is in the reverse order of channels": lambda x: (x - mean[::-1]) * scale,
        "the standard deviation is in the reverse order of channels": lambda x: (x - mean) * scale[::-1],
        "mean and standard deviation are in the reverse order of channels": lambda x: (x - mean[::-1]) * scale[::-1],
        "no standard deviation divides: pixels / 255 - mean": lambda x: (x - mean) / FULL,
        "only the mean is subtracted": lambda x: x - mean,
        "pixels are only divided by 255": lambda x: x / FULL,
        "pixels are taken as they are": lambda x: x,
        "pixels are brought to -1 to 1": lambda x: x / (FULL / 2) - 1,
        "mean and standard deviation are those of ImageNet": lambda x: (x - imagenet_mean) * imagenet_scale,
        "mean and standard deviation are those of ImageNet in the reverse order of channels": lambda x: (
            (x - imagenet_mean[::-1]) * imagenet_scale[::-1]
        ),
        "the mean is that of ImageNet": lambda x: (x - imagenet_mean) * scale,
        "the standard deviation is that of ImageNet": lambda x: (x - mean) * imagenet_scale,
        "one scale, the average, is used for every channel": lambda x: (x - mean) * common,
        "one mean, the average, is used for every channel": lambda x: (x - mean.mean()) * scale,
        "the scale divides instead of multiplying": lambda x: (x - mean) / scale,
    }
