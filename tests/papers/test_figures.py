"""The papers' figures as data: every table and row, as printed, and nothing that its model does not know."""

from __future__ import annotations

import copy
import tomllib
from typing import Any

import pytest
from pydantic import ValidationError

from deploykit.models.table import MODELS
from deploykit.papers.figures import FILE, PapersFile, load_papers, rows
from deploykit.recipe import bundled_recipes, load_recipe
from deploykit.resources import bundled

PUBLIC = "section 4.4.2, Supervise-Portrait"
HUMANSEG = "section 4.4.2, PP-HumanSeg14K"
# Table → its number of rows in the paper, and cells read from the paper again: row from 0, method, key, dataset, value.
PRINTED: dict[tuple[str, str], tuple[int, list[tuple[int, str, str, str | None, float]]]] = {
    ("rcrnet", "Table 1"): (
        10,
        [
            (0, "ENet", "flops_giga", None, 0.346),
            (1, "BiSeNetV3", "params_millions", None, 14.24),
            (6, "ContextNet", "miou_percent", "EG1800", 95.71),
            (7, "MobileNetV3", "flops_giga", None, 0.066),
            (9, "RCRNet 4", "params_millions", None, 0.772),
        ],
    ),
    ("rcrnet", "Table 2"): (
        6,
        [
            (1, "PortraitNet", "miou_percent", "P3M-500-np", 95.75),
            (2, "BiSeNetV3", "miou_percent", "P3M-500-p", 94.25),
            (3, "RCRNet 2", "flops_giga", None, 0.177),
            (5, "RCRNet 4", "miou_percent", "P3M-500-np", 96.15),
        ],
    ),
    ("rcrnet", "Table 3"): (
        5,
        [
            (1, "RCRNet 1", "flops_giga", None, 0.157),
            (2, "RCRNet 2", "params_millions", None, 0.608),
            (3, "RCRNet 3", "miou_percent", "EG1800", 96.31),
            (4, "RCRNet 4", "params_millions", None, 0.770),
        ],
    ),
    ("elb", "Table 1"): (
        12,
        [
            (3, "BSN", "miou_percent", "PFCN (original)", 96.7),
            (4, "FCN", "miou_percent", "PFCN (original)", 73.1),
            (5, "PIS", "fps", None, 23.8),
            (7, "ERFNet", "flops_giga", None, 13.4),
            (9, "ICNet", "miou_percent", "PSEG", 90.0),
            (10, "BiSeNet", "params_millions", None, 12.8),
            (11, "ELB", "fps", None, 263.2),
        ],
    ),
    ("elb", "Table 2"): (
        2,
        [
            (0, "BFB-DR4", "fps", None, 370.4),
            (0, "BFB-DR4", "miou_percent", "PFCN", 93.7),
            (1, "BFB-DR2", "flops_giga", None, 3.8),
            (1, "BFB-DR2", "params_millions", None, 0.6),
        ],
    ),
    ("portraitnet", "Table 1"): (
        4,
        [
            (0, "PortraitNet-M", "miou_percent", "Supervise-Portrait", 92.63),
            (1, "PortraitNet-B", "miou_percent", "EG1800", 96.54),
            (2, "PortraitNet-C", "miou_percent", "Supervise-Portrait", 93.17),
            (3, "PortraitNet", "miou_percent", "EG1800", 96.62),
        ],
    ),
    ("portraitnet", "Table 2"): (
        6,
        [
            (0, "PortraitNet-M and -B", "edge_iou_percent", "single model", 91.56),
            (2, "PortraitNet-M and -B", "sigma_pixels", None, 10),
            (3, "PortraitNet-M and -B", "edge_iou_percent", "edge model", 97.86),
            (5, "PortraitNet-M and -B", "edge_iou_increase_points", None, 0.20),
        ],
    ),
    ("portraitnet", "Table 3"): (
        2,
        [
            (0, "PortraitNet-M", "miou_percent", "EG1800, illumination changed", 95.78),
            (0, "PortraitNet-M", "miou_percent", "Supervise-Portrait, illumination changed", 91.51),
            (1, "PortraitNet-C", "miou_percent", "EG1800, illumination changed", 96.24),
        ],
    ),
    ("portraitnet", "Table 4"): (
        6,
        [
            (0, "PortraitFCN+", "miou_percent", "EG1800", 95.91),
            (2, "BiSeNet", "miou_percent", "Supervise-Portrait", 92.56),
            (4, "BiSeNet+", "miou_percent", "EG1800", 95.55),
        ],
    ),
    ("portraitnet", "Table 5"): (
        5,
        [
            (0, "PortraitFCN+", "params_millions", None, 134.27),
            (1, "ENet", "flops_giga", None, 0.44),
            (2, "BiSeNet", "flops_giga", None, 9.52),
            (4, "PortraitNet", "flops_giga", None, 0.51),
        ],
    ),
    ("portraitnet", "Table 6"): (
        5,
        [
            (0, "PortraitFCN+", "latency_ms", None, 19.04),
            (2, "BiSeNet", "latency_ms", None, 5.15),
            (4, "PortraitNet", "latency_ms", None, 4.92),
        ],
    ),
    ("portraitnet", "section 4.4.4"): (1, [(0, "PortraitNet", "latency_ms", None, 32)]),
    ("sinet", "Table 1"): (
        4,
        [
            (0, "depthwise separable dilated convolution", "latency_ms", None, 6.7),
            (1, "depthwise separable dilated convolution", "dilation", None, 6),
            (3, "depthwise separable dilated convolution", "latency_ms", None, 12.03),
        ],
    ),
    ("sinet", "Table 3"): (
        12,
        [
            (0, "ENet", "fps", None, 8.06),
            (1, "BiSeNet", "params_millions", None, 0.124),
            (2, "PortraitNet", "miou_quoted_percent", "EG1800", 96.62),
            (5, "DS-ESPNet(0.5)", "params_millions", None, 0.064),
            (8, "ContextNet12", "flops_giga", None, 1.87),
            (10, "SINet", "boundary_f1", None, 0.884),
            (11, "SINet+", "miou_percent", "EG1800", 95.29),
        ],
    ),
    ("sinet", "Table 4"): (
        4,
        [
            (0, "IB", "miou_percent", "EG1800, 25 degrees", 88.62),
            (1, "Reverse IB", "miou_percent", "EG1800", 94.68),
            (2, "Remove IB", "miou_percent", "EG1800, 75 degrees", 75.36),
            (3, "GAU", "miou_percent", "EG1800, 90 degrees", 73.96),
        ],
    ),
    ("sinet", "Table 5"): (
        7,
        [
            (1, "SINet with one receptive field", "boundary_f1", None, 0.851),
            (2, "SINet with one receptive field", "miou_percent", "EG1800", 90.34),
            (3, "SINet with one receptive field", "convolution_kernel", None, 5),
            (5, "SINet with one receptive field", "pooling_kernel", None, 4),
            (6, "SINet", "miou_percent", "EG1800", 94.81),
        ],
    ),
    ("sinet", "Table 6"): (
        6,
        [
            (0, "ESPNet", "flops_giga", None, 4.5),
            (1, "ContextNet14", "flops_giga", None, 5.63),
            (3, "MobileNetV2(0.35)", "miou_percent", "Cityscapes validation", 66.83),
            (4, "MobileNetV3-small", "params_millions", None, 0.47),
            (5, "SINet", "miou_percent", "Cityscapes test", 66.5),
        ],
    ),
    ("sinet", "section 4.1"): (2, [(0, "MobileNetV3", "fps", None, 60.7), (1, "SINet", "fps", None, 100.6)]),
    ("sinet", "section 1"): (1, [(0, "SINet", "params_millions", None, 0.0869)]),
    ("mobilenetv3_sappm", "Table 2"): (
        9,
        [
            (0, "BiSeNet v1", "flops_giga", None, 14.82),
            (2, "ERFNet", "aacc_percent", None, 97.45),
            (4, "SeaFormer", "aacc_percent", None, 93.65),
            (5, "ICNet", "params_millions", None, 47.528),
            (6, "PIDNet", "macc_percent", None, 97.72),
            (8, "ours", "flops_giga", None, 0.709),
        ],
    ),
    ("mobilenetv3_sappm", "Table 3"): (
        3,
        [
            (0, "PortraitNet", "flops_giga", None, 0.325),
            (1, "SINet", "miou_percent", "EG1800", 95.29),
            (2, "ours", "macc_percent", None, 97.76),
        ],
    ),
    ("mobilenetv3_sappm", PUBLIC): (
        2,
        [
            (0, "PortraitNet", "miou_percent", "Supervise-Portrait", 94.43),
            (0, "PortraitNet", "flops_giga", None, 0.51),
            (1, "ours", "flops_giga", None, 0.136),
        ],
    ),
    ("mobilenetv3_sappm", HUMANSEG): (
        2,
        [
            (0, "PP-HumanSeg", "miou_percent", "PP-HumanSeg14K", 94.2),
            (0, "PP-HumanSeg", "params_millions", None, 0.13),
            (1, "ours", "miou_percent", "PP-HumanSeg14K", 94.6),
        ],
    ),
    ("mobilenetv3_sappm", "Table 4"): (
        4,
        [
            (0, "PPM", "miou_percent", "Supervise-Portrait", 91.54),
            (1, "DAPPM", "aacc_percent", None, 97.2),
            (3, "ours", "macc_percent", None, 96.89),
        ],
    ),
    ("mobilenetv3_sappm", "Table 5"): (
        10,
        [
            (1, "paperpag-12", "miou_percent", "Supervise-Portrait", 85.62),
            (5, "sea-shortcut", "aacc_percent", None, 97.34),
            (7, "GD-FAM", "aacc_percent", None, 97.29),
            (9, "ours", "macc_percent", None, 97.34),
        ],
    ),
    ("mobilenetv3_sappm", "Table 6"): (
        4,
        [
            (0, "1 (baseline)", "miou_percent", "Supervise-Portrait", 94.23),
            (2, "3", "aacc_percent", None, 97.28),
            (3, "4", "miou_percent", "Supervise-Portrait", 95.05),
        ],
    ),
    ("mobilenetv3_sappm", "Table 7"): (
        7,
        [
            (1, "ours", "miou_percent", "Supervise-Portrait", 95.75),
            (3, "ours", "macc_percent", None, 97.65),
            (5, "ours", "aacc_percent", None, 98.03),
        ],
    ),
    ("mobilenetv3_sappm", "Table 8"): (
        2,
        [
            (0, "ours", "miou_percent", "PP-HumanSeg14K", 39.32),
            (1, "ours", "miou_percent", "PP-HumanSeg14K", 94.59),
            (1, "ours", "miou_percent", "Supervise-Portrait", 74.79),
        ],
    ),
}

TABLES = {(paper.network, table.place): table for paper in load_papers() for table in paper.tables}


def test_every_table_of_results_is_there_with_every_row():
    assert {key: len(table.rows) for key, table in TABLES.items()} == {key: n for key, (n, _) in PRINTED.items()}
    assert sum(1 for _ in rows(load_papers())) == 143


@pytest.mark.parametrize("key", PRINTED, ids=" ".join)
def test_cells_are_as_printed(key):
    table = TABLES[key]
    cells = sum(len(v) if isinstance(v, dict) else 1 for row in table.rows for v in row.figures().values())
    checks = PRINTED[key][1]
    assert len(checks) >= min(3, cells)
    for index, method, figure, part, value in checks:
        row = table.rows[index]
        found = getattr(row, figure)
        assert (row.method, found[part] if part else found) == (method, value)


@pytest.mark.parametrize(
    ("figure", "least", "most"),
    [
        ("params_millions", 0.05, 150),
        ("flops_giga", 0.05, 65),
        ("fps", 1, 400),
        ("latency_ms", 1, 50),
        ("boundary_f1", 0.75, 0.95),
        ("aacc_percent", 90, 99),
        ("macc_percent", 90, 99),
        ("edge_iou_increase_points", 0.1, 1),
    ],
)
def test_figures_are_in_their_units(figure, least, most):
    values = [getattr(row, figure) for _, _, row in rows(load_papers()) if getattr(row, figure) is not None]
    assert values
    assert all(least <= value <= most for value in values)


def test_ious_are_percentages_of_named_datasets():
    found = {dataset: value for _, _, row in rows(load_papers()) for dataset, value in (row.miou_percent or {}).items()}
    assert min(found.values()) > 35
    assert {"EG1800", "Supervise-Portrait", "PFCN", "PSEG", "P3M-500-p", "P3M-500-np", "PP-HumanSeg14K"} <= set(found)


def test_the_increase_in_edge_iou_is_the_difference_of_its_columns():
    for row in TABLES["portraitnet", "Table 2"].rows:
        assert row.edge_iou_percent is not None
        difference = row.edge_iou_percent["edge model"] - row.edge_iou_percent["single model"]
        assert difference == pytest.approx(row.edge_iou_increase_points, abs=1e-9)


def test_times_that_two_papers_print_are_one_time():
    (own,) = [row for row in TABLES["portraitnet", "Table 6"].rows if row.recipe]
    quoted = TABLES["elb", "Table 1"].rows[6]
    assert own.latency_ms is not None
    assert quoted.fps == pytest.approx(1000 / own.latency_ms, abs=0.1)


def test_networks_recipes_and_outputs_exist():
    assert {paper.network for paper in load_papers()} == set(MODELS)
    for paper in load_papers():
        assert set(paper.recipes) <= set(bundled_recipes())
        for recipe in paper.recipes:
            file = load_recipe(recipe).file
            assert file.network.factory == paper.network
            assert all(set(one.without) <= {output.name for output in file.outputs} for one in paper.counting)


def test_doubtful_cells_carry_a_note():
    def noted(network: str, place: str, index: int) -> str:
        return TABLES[network, place].rows[index].note or ""

    assert "9365" in noted("mobilenetv3_sappm", "Table 2", 4)
    assert "93.43" in noted("mobilenetv3_sappm", PUBLIC, 0)
    assert "damaged" in noted("rcrnet", "Table 2", 3)
    assert "0.770" in noted("rcrnet", "Table 1", 9)
    assert "2048 x 512" in noted("sinet", "Table 6", 5)


def change(path: str, value: object) -> dict[str, Any]:
    """The file's table with one value changed, or deleted where ``value`` is None."""
    whole = copy.deepcopy(tomllib.loads((bundled("benchmarks") / FILE).read_text("utf-8")))
    *way, last = (int(part) if part.isdecimal() else part for part in path.split("."))
    inner: Any = whole
    for part in way:
        inner = inner[part]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return whole


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("papers.0.tables.0.rows.0.miou_percent", {"EG1800": 195.16}, "less than or equal to 100"),
        ("papers.0.tables.0.rows.0.params_millions", "0.355", "valid number"),
        ("papers.0.tables.0.rows.0.params_millions", -0.355, "greater than 0"),
        ("papers.0.tables.0.rows.0.params", 0.355, "Extra inputs"),
        ("papers.0.tables.0.rows.0.flops_giga", float("nan"), "finite number"),
        ("papers.0.tables.0.rows.9.convention", None, "a convention beside the FLOPs"),
        ("papers.0.tables.0.rows.9.convention", "gigaflops", "Input should be"),
        ("papers.0.tables.0.rows.9.recipe", "rcrnet-9", "rcrnet-9 in Table 1"),
        ("papers.0.tables.0.rows.9.recipe", "elb", "counting of elb for Table 1"),
        ("papers.0.tables.0.columns.fps", "speed", "'fps'"),
        ("papers.0.tables.0.columns.flops_giga", None, "'flops_giga'"),
        ("papers.0.tables.0.input_size", None, "input size of the FLOPs"),
        ("papers.0.tables.0.name", "Table 1", "either number or name"),
        ("papers.0.tables.0.number", 2, "each table once"),
        ("papers.1.tables.0.device", None, "device of its times"),
        ("papers.1.recipes", ["elb", "rcrnet"], "own recipes alone"),
        ("papers.1.recipes", ["elb", "elb-dr4", "rcrnet"], "each recipe under one paper"),
    ],
)
def test_a_slip_in_the_file_is_refused(path, value, message):
    assert PapersFile.model_validate(change("format_version", 1)).papers == load_papers()
    with pytest.raises(ValidationError, match=message):
        PapersFile.model_validate(change(path, value))
