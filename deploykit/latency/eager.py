"""PyTorch itself as something to measure: opened in the agent's process, eager or compiled."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from deploykit.network import build_network
from deploykit.recipe import Recipe
from deploykit.recipe_file import RecipeFile

OPENER = "deploykit.latency.eager:open_network"


def open_network(subject: Mapping[str, Any]) -> OpenNetwork:
    """Return the network of ``subject``, ready to run on its inputs; see ``load_network_of``."""
    called, recipe, runtime = load_network_of(subject)
    names = [item.name for item in recipe.file.inputs]
    feeds = [tuple(torch.from_numpy(np.load(feed[name])) for name in names) for feed in subject["inputs"]]
    return OpenNetwork(called, runtime, feeds)


def load_network_of(subject: Mapping[str, Any]) -> tuple[Any, Recipe, str]:
    """Return the network of ``subject`` to call, its recipe, and what runs it; PyTorch's threads are set.

    Its arguments are ``recipe`` (the table of its file), ``recipe_path`` and ``compiled``; its path is a state dict
    that ``torch.save`` wrote.
    """
    arguments = subject["arguments"]
    torch.set_num_threads(subject["threads"])
    recipe = Recipe(RecipeFile.model_validate(arguments["recipe"]), Path(arguments["recipe_path"]), "")
    network = build_network(recipe)
    network.load_state_dict(torch.load(subject["path"], weights_only=True))
    compiled = arguments["compiled"]
    how = "torch.compile" if compiled else "eager"
    return torch.compile(network) if compiled else network, recipe, f"PyTorch {torch.__version__}, {how}"


class OpenNetwork:
    """A network in evaluation mode, ready to run on ``feeds`` in turn."""

    def __init__(self, called: Any, runtime: str, feeds: list[tuple[torch.Tensor, ...]]) -> None:
        self._called = called
        self._feeds = itertools.cycle(feeds)
        self.runtime = runtime

    def run(self) -> object:
        """Do one inference."""
        with torch.inference_mode():
            return self._called(*next(self._feeds))

    def steps(self) -> dict[str, float]:
        """Return nothing: an inference is one step."""
        return {}

    def close(self) -> None:
        """Release the network."""
        del self._called

    def profile(self, runs: int) -> list[dict[str, Any]]:
        """Return the mean time of each module in one inference, without that of the modules in it.

        Operations that a module's ``forward`` calls as functions count as its own. Raises ValueError for a compiled
        network, whose kernels belong to no module.
        """
        if isinstance(self._called, torch._dynamo.OptimizedModule):
            raise ValueError("torch.compile fuses operations across modules; profile PyTorch eager for the modules")
        profile = _ModuleTimes(self._called)
        with ExitStack() as stack:
            stack.callback(profile.remove)
            for _ in range(3):
                self.run()
            profile.clear()
            for _ in range(runs):
                self.run()
        return profile.rows(runs)


class _ModuleTimes:
    """Hooks on every module that add up its own time. Their cost, a few microseconds, is in the module around."""

    def __init__(self, network: nn.Module) -> None:
        self._own: dict[str, float] = {}
        self._kinds = {name: type(module).__name__ for name, module in network.named_modules()}
        self._open: list[list[float]] = []
        self._handles = []
        for name, module in network.named_modules():
            self._handles.append(module.register_forward_pre_hook(lambda *_: self._enter()))
            self._handles.append(module.register_forward_hook(lambda *_, name=name: self._leave(name)))

    def _enter(self) -> None:
        self._open.append([time.perf_counter(), 0.0])

    def _leave(self, name: str) -> None:
        start, inner = self._open.pop()
        whole = time.perf_counter() - start
        self._own[name] = self._own.get(name, 0.0) + whole - inner
        if self._open:
            self._open[-1][1] += whole

    def clear(self) -> None:
        self._own.clear()
        self._open.clear()

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def rows(self, runs: int) -> list[dict[str, Any]]:
        return [
            {
                "name": name or "(network)",
                "operation": self._kinds[name],
                "seconds": seconds / runs,
                "values": [],
                "reads": [],
                "modules": [name or "(network)"],
            }
            for name, seconds in self._own.items()
        ]
