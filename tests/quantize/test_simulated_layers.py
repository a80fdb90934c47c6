"""What one layer alone costs in integers is the same number, whether what comes before it is computed again or not."""

from __future__ import annotations

import pytest
import torch
from targets.small_case import write_case

from deploykit.network import load_network
from deploykit.quantize.simulation import Simulation, ranges_of
from deploykit.recipe import load_recipe
from deploykit.verify.reparam import deploy_graph, training_graph
from deploykit.vocab import Estimator


@pytest.mark.parametrize("everything", [False, True])
def test_a_layer_alone_costs_what_it_costs_in_a_run_of_its_own(tmp_path, everything):
    network = load_network(load_recipe(write_case(tmp_path)))
    simulation = Simulation(deploy_graph(training_graph(network), network.recipe), everything=everything)
    generator = torch.Generator().manual_seed(0)
    images = [(torch.randn(1, 3, 64, 64, generator=generator),) for _ in range(2)]
    expected = [simulation.outputs(one, {}, ()) for one in images]
    ranges = ranges_of(simulation.seen(images), Estimator.MIN_MAX)
    alone = simulation.snr_db_alone(images, ranges, expected)
    assert tuple(alone) == simulation.layers
    assert alone == {layer: simulation.snr_db(images, ranges, (layer,), expected) for layer in alone}
    assert len(set(alone.values())) > 3
