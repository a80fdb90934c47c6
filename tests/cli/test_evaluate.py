"""``deploykit evaluate`` as a user sees it."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from deploykit.images.synthetic import synthesize
from deploykit.report.picture import write_image


@pytest.fixture
def people(here):
    """A folder of four portraits of another size than the input, with their masks."""
    for seed in range(4):
        portrait = synthesize(5_000_000 + seed, 160)
        write_image(here / "people" / "images" / f"{seed}.png", portrait.image)
        write_image(here / "people" / "masks" / f"{seed}.png", portrait.mask * np.uint8(255))
    return here / "people"


def damage(folder):
    (folder / "masks" / "1.png").unlink()
    cv2.imwrite(str(folder / "masks" / "2.png"), np.zeros((160, 159), np.uint8))


def test_a_recipe_on_a_folder_in_a_table_and_as_json(deploykit, people):
    shown = deploykit("evaluate", "sinet", "--data", "people", "--clips", "1")
    assert shown.code == 0, shown.err
    for text in ("4 images: people", "mean IoU of the portrait", "temporal flicker", "percentile bootstrap"):
        assert text in shown.out
    assert "image 0 of 4" in shown.err
    assert "image 0" not in shown.out
    result = deploykit("evaluate", "sinet", "--data", "people", "--clips", "0", "--edge-sigma", "5", "--json")
    assert result.code == 0, result.err
    record = json.loads(result.out)
    assert record["kind"] == "evaluate"
    body = record["body"]
    assert body["found"] == 4
    assert body["invalid"] == []
    assert body["settings"]["edge_sigma"] == 5
    assert body["settings"]["interval_method"] == "percentile"
    (found,) = body["evaluations"]
    assert [image["name"] for image in found["images"]] == ["0", "1", "2", "3"]
    ious = [image["foreground_iou"] for image in found["images"]]
    summary = next(one for one in found["summaries"] if one["metric"] == "foreground_iou")
    assert summary["estimate"]["value"] == pytest.approx(np.mean(ious))
    assert summary["estimate"]["interval"][0] <= np.mean(ious) <= summary["estimate"]["interval"][1]
    assert np.mean(ious) > 0.9


def test_data_that_cannot_be_used_is_listed_and_exit_code_2(deploykit, people):
    damage(people)
    result = deploykit("evaluate", "sinet", "--data", "people", "--clips", "0")
    assert result.code == 2
    assert result.out == ""
    for text in ("2 cannot be used; 2 pairs can", "images/1.png", "masks/2.png", "--skip-invalid"):
        assert text in result.err


def test_skip_invalid_evaluates_the_rest_and_says_what_it_left_out(deploykit, people):
    damage(people)
    result = deploykit("evaluate", "sinet", "--data", "people", "--clips", "0", "--skip-invalid", "--json")
    assert result.code == 0, result.err
    body = json.loads(result.out)["body"]
    assert body["found"] == 4
    assert {one["name"] for one in body["invalid"]} == {"images/1.png", "masks/2.png"}
    assert [image["name"] for image in body["evaluations"][0]["images"]] == ["0", "3"]
    assert "left out images/1.png" in result.err
    assert "2 of the data left out, 2 pairs evaluated" in result.err


def test_several_subjects_stand_side_by_side_with_their_difference(deploykit, here):
    import torch

    from deploykit.api import load

    state = load("sinet").module.state_dict()
    state["encoder.level3_0.bn.running_var"] = state["encoder.level3_0.bn.running_var"] * 4
    torch.save(state, here / "worse.pt")
    shown = deploykit("evaluate", "sinet", "worse.pt", "--samples", "2", "--clips", "0")
    assert shown.code == 0, shown.err
    assert "minus the first" in shown.out
    body = json.loads(deploykit("evaluate", "sinet", "worse.pt", "--samples", "6", "--clips", "0", "--json").out)[
        "body"
    ]
    first, worse = body["evaluations"]
    assert (first["subject"], worse["subject"]) == ("sinet", "worse.pt")
    (loss,) = [one["difference"] for one in worse["summaries"] if one["metric"] == "foreground_iou"]
    assert loss["interval"][1] < 0, "a damaged BatchNorm is a loss beyond doubt"


def test_what_cannot_be_evaluated_is_exit_code_2(deploykit, here):
    for arguments, text in (
        (("nosuch",), "nothing that can be evaluated"),
        (("sinet", "--data", "absent"), "images/ and masks/"),
        (("sinet", "--samples", "0"), "1 to 128"),
        (("sinet", "--edge-sigma", "-1"), "--edge-sigma"),
        (("sinet", "--skip-invalid"), "--data"),
        (("sinet", "sinet"), "given twice"),
    ):
        result = deploykit("evaluate", *arguments)
        assert result.code == 2
        assert text in result.err
        assert result.out == ""


@pytest.mark.full
def test_every_target_loses_next_to_nothing_in_miou(deploykit, here):
    """What an export costs: fp32 files give the same masks, fp16 files move a few pixels in a million."""
    assert deploykit("export", "sinet", "-o", "out").code == 0
    half = deploykit("export", "sinet", "--target", "coreml,tflite", "--variant", "phone-camera", "-o", "out")
    assert half.code == 0, half.err
    result = deploykit("evaluate", "sinet", "out", "--samples", "16", "--clips", "1", "--json")
    assert result.code == 0, result.err
    body = json.loads(result.out)["body"]
    assert len(body["evaluations"]) == 6
    for one in body["evaluations"][1:]:
        limit = 1e-3 if one["precision"] == "fp16" else 1e-5
        for summary in one["summaries"]:
            assert abs(summary["difference"]["value"]) <= limit, (one["subject"], summary["metric"])
