"""The commands that make and check certificates and manifests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from deploykit.artifact import read_artifact
from deploykit.certificate.check import check_certificate
from deploykit.certificate.file import read_certificate
from deploykit.cli.certificate_tables import show_certificate_check, show_manifest_check
from deploykit.cli.main import run_command
from deploykit.provenance.check import check_manifest
from deploykit.vocab import Target

Deploykit = Callable[..., tuple[int, str, str]]


@pytest.fixture
def deploykit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Deploykit:
    """Return a function that runs one command and returns exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["deploykit", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            run_command()
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return run


def one_weight_changed(recipe: Path) -> Path:
    checkpoint = recipe.with_name("chain.pt")
    state = torch.load(checkpoint, weights_only=True)
    weight = state["wide.0.weight"].view(-1)
    weight[0] = torch.nextafter(weight[0], torch.tensor(9.0))
    torch.save(state, checkpoint)
    return checkpoint


def test_verify_reparam_writes_the_certificate_that_export_writes(deploykit, copied, tmp_path):
    chain = copied()
    path = tmp_path / "made.json"
    code, out, err = deploykit("verify-reparam", chain.recipe, "--certificate", path)
    assert code == 0, err
    assert "every block holds" in out
    assert "does not stop an adversary" in out
    assert path.read_bytes() == (chain.folder / "certificate.json").read_bytes()
    assert [block.kind for block in read_certificate(path).certificate.blocks] == ["fold", "merge"]


def test_the_json_of_verify_reparam_sums_the_certificate_up(deploykit, copied, tmp_path):
    code, out, _ = deploykit("verify-reparam", copied().recipe, "--certificate", tmp_path / "made.json", "--json")
    summary = json.loads(out)["body"][0]["certificate"]
    assert code == 0
    assert summary["passed"] is True
    assert (summary["blocks"], summary["merged"]) == (2, 1)
    assert 0 < summary["worst_float64_error"] < 1e-12


def test_a_certificate_is_of_one_network(deploykit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = deploykit("verify-reparam", "--certificate", tmp_path / "made.json")
    assert code == 2
    assert "one RECIPE" in err


def test_a_certificate_that_cannot_be_written_is_an_error_of_the_user(deploykit, copied, tmp_path):
    code, _, err = deploykit("verify-reparam", copied().recipe, "--certificate", tmp_path / "no folder" / "made.json")
    assert code == 2
    assert "cannot be written" in err
    assert "capturing" not in err


def test_bench_keeps_its_record_beside_the_artifact(deploykit, copied):
    chain = copied(checkpoint=False)
    before = len(read_artifact(chain.folder).measurements)
    code, _, err = deploykit(
        "bench", chain.folder, "--keep", "--runs", "3", "--seconds", "0.01", "--precision-target", "none"
    )
    assert code == 0, err
    assert "kept beside 1 artifact" in err
    assert len(read_artifact(chain.folder).measurements) == before + 1
    assert check_manifest(chain.folder).passed


def test_what_a_check_shows(copied, capsys):
    chain = copied()
    certificate = chain.folder / "certificate.json"
    show_certificate_check(check_certificate(certificate, recipe=chain.recipe), as_json=False)
    assert "chain: 2 blocks, as certified" in capsys.readouterr().out
    show_manifest_check(check_manifest(chain.folder, recipe=chain.recipe), as_json=False)
    shown = capsys.readouterr().out
    assert "as recorded" in shown
    assert "each folded, measured and bounded again" in shown

    checkpoint = one_weight_changed(chain.recipe)
    show_certificate_check(check_certificate(certificate, recipe=chain.recipe), as_json=False)
    assert "FAILED" in (shown := capsys.readouterr().out)
    assert "folded weight" in shown
    show_certificate_check(check_certificate(certificate, recipe=chain.recipe), as_json=True)
    body = json.loads(capsys.readouterr().out)["body"]
    assert body["passed"] is False
    assert {one["where"] for one in body["differences"]} == {"", "wide.0"}
    check = check_manifest(chain.folder, recipe=chain.recipe, checkpoint=checkpoint)
    show_manifest_check(check, as_json=True)
    body = json.loads(capsys.readouterr().out)["body"]
    assert body["passed"] is False
    assert [one["name"] for one in body["links"] if one["verdict"] == "FAIL"] == ["checkpoint"]


def test_a_certificate_is_made_for_every_target(written):
    certificates = {target: (chain.folder / "certificate.json").read_bytes() for target, chain in written.items()}
    assert certificates[Target.ONNX] == certificates[Target.COREML]
    for target, chain in written.items():
        assert read_artifact(chain.folder).certificate is not None, target
