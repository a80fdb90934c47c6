"""deploykit papers: what a person and a program read."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from rich.console import Console

import deploykit.cli.console


@pytest.fixture
def hundred_columns(monkeypatch):
    monkeypatch.setattr(
        deploykit.cli.console, "stdout_console", lambda: Console(file=sys.stdout, width=100, highlight=False)
    )


@pytest.mark.usefixtures("hundred_columns")
@pytest.mark.parametrize("arguments", [(), ("--network", "portraitnet"), ("--rows",)])
def test_nothing_is_cut_at_a_hundred_columns(deploykit, arguments):
    result = deploykit("papers", *arguments)
    assert result.code == 0, result.err
    assert "…" not in result.out
    assert max(map(len, result.out.splitlines())) <= 100


def test_the_summary_names_convention_dataset_and_device(deploykit):
    out = deploykit("papers").out
    for said in (
        "cost, conv-macs, merged, 224x224",
        "cost, portraitnet-paper, 224x224",
        "cost, mmengine, 512x512",
        "cost, macs, 512x512",
        "mIoU (two-class), synthetic portraits",
        "iPhone XS, Core ML",
        "NVIDIA GTX 1080 Ti",
    ):
        assert said in out
    assert "SINet: SINet" not in out
    assert "0.772 M" in out
    assert "+9.6 %" in out


def test_the_contradictions_are_said(deploykit):
    out = " ".join(deploykit("papers").out.split())
    assert "print 0.772 M parameters for RCRNet 4, Table 3 prints 0.770 M" in out
    assert "prints 0.6 M parameters and 3.8 G" in out
    assert "prints 0.51 G" in out
    assert "print 0.325 G" in out


def test_json_holds_the_figures_that_the_table_shows(deploykit):
    record = json.loads(deploykit("papers", "--network", "sinet", "--json").out)
    assert record["kind"] == "papers"
    (sinet,) = record["body"]
    (cost,) = [line for line in sinet["lines"] if line["figure"] == "flops_giga"]
    assert cost["deviation_percent"] == pytest.approx(100 * (cost["measured"] / cost["stated"] - 1))
    assert (cost["convention"], cost["input_size"], cost["merged"]) == ("conv-macs", [224, 224], False)
    assert {"paper": "SINet", "place": "Table 3"} in cost["places"]


def test_rows_prints_every_row_rivals_included(deploykit):
    papers = json.loads(deploykit("papers", "--rows", "--json").out)["body"]
    assert sum(len(table["rows"]) for paper in papers for table in paper["tables"]) == 143
    out = deploykit("papers", "--rows", "--network", "elb").out
    assert "Graph-cut" in out
    assert "BFB-DR4" in out
    assert "SINet" not in out
    assert "42 ms (section 3.3)" in out


@pytest.mark.parametrize("option", [(), ("--rows",)])
def test_an_unknown_network_is_an_error_with_the_list(deploykit, option):
    result = deploykit("papers", "--network", "unet", *option)
    assert (result.code, result.out) == (2, "")
    assert "found: unet" in result.err
    assert "portraitnet, portraitnet-bilinear, sinet" in result.err


def test_the_summary_needs_no_torch():
    code = "import sys; from deploykit.cli.main import run_command as run\ntry: run()\nexcept SystemExit: pass\n"
    code += "assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code, "papers"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
