"""Networks and files with known masks, so that every figure is known beforehand."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from evaluation_cases import box, state, write_pair, write_recipe

from deploykit.api import evaluate, load
from deploykit.errors import ArtifactError, RecipeError, UsageError, VerificationError
from deploykit.evaluation.dataset import HELD_OUT_SEEDS
from deploykit.evaluation.evaluate import CLIP_FRAMES, Options
from deploykit.images.synthetic import synthesize
from deploykit.images.synthetic.motion import synthesize_clip
from deploykit.recipe import load_recipe
from deploykit.training.plan import PLANS
from deploykit.training.score import score

STILL = Options(clips=0)


def values(evaluation) -> dict[str, float]:
    return {one.metric: one.estimate.value for one in evaluation.summaries}


@pytest.fixture
def data(tmp_path):
    """Three images of another size than the input: one perfect, one with twice the area shown, one with nothing."""
    folder = tmp_path / "data"
    write_pair(folder, "perfect", box(128, 192))
    half = np.zeros((128, 192), bool)
    half[:, :96] = True
    write_pair(folder, "double", half, np.ones_like(half))
    write_pair(folder, "missed", half, np.zeros_like(half))
    return folder


def test_figures_of_known_masks(bright, data):
    run = evaluate(bright, data=data, options=STILL)
    assert (run.found, run.invalid, run.data) == (3, (), str(data))
    (found,) = run.evaluations
    assert found.subject == "bright"
    assert found.runtime.startswith("PyTorch")
    by_name = {image.name: image for image in found.images}
    assert list(by_name) == ["double", "missed", "perfect"]
    assert {name: image.foreground_iou for name, image in by_name.items()} == {
        "double": 0.5,
        "missed": 0.0,
        "perfect": 1.0,
    }
    assert (by_name["double"].height, by_name["double"].width) == (128, 192), "compared at the size of the truth"
    assert by_name["double"].edge_iou == 1.0
    assert by_name["missed"].boundary_f1 == 0.0
    assert by_name["missed"].counts.false_negative == 128 * 96
    assert values(found) == pytest.approx(
        {
            "foreground_iou": 0.5,
            "two_class_miou": (0.25 + 0.25 + 1) / 3,
            "pooled_two_class_miou": pooled(found),
            "edge_iou": 2 / 3,
            "boundary_f1": (2 / 3 + 0 + 1) / 3,
            "pixel_accuracy": 2 / 3,
            "mean_class_accuracy": 2 / 3,
        },
        abs=0.01,
    )
    assert all(one.count == 3 and one.undefined == 0 for one in found.summaries)
    low, high = found.summary("foreground_iou").estimate.interval
    assert (low, high) == (0.0, 1.0)


def pooled(found) -> float:
    tp, fp, fn, tn = (
        sum(getattr(image.counts, name) for image in found.images)
        for name in ("true_positive", "false_positive", "false_negative", "true_negative")
    )
    return (tp / (tp + fp + fn) + tn / (tn + fp + fn)) / 2


def test_a_file_gives_what_its_checkpoint_gives_and_the_difference_says_so(bright, data, exported):
    run = evaluate(bright, exported["bright"], data=data, options=STILL)
    network, file = run.evaluations
    assert file.subject == "bright onnx fp32"
    assert file.runtime.startswith("ONNX Runtime")
    assert file.path == exported["bright"].path
    assert file.content_hash == exported["bright"].content_hash
    assert file.images == network.images
    assert all(one.difference is None for one in network.summaries)
    assert all(one.difference.value == 0 and one.difference.interval == (0, 0) for one in file.summaries)


def test_a_network_that_is_worse_shows_in_the_difference(tmp_path, data, exported):
    torch.save(state(level=2.0), tmp_path / "blind.pt")
    blind = load(load_recipe(write_recipe(tmp_path / "again")), checkpoint=tmp_path / "blind.pt")
    run = evaluate(exported["bright"], blind, data=data, options=STILL)
    worse = run.evaluations[1]
    assert worse.subject == "blind.pt"
    assert worse.summary("foreground_iou").estimate.value == 0.0
    assert worse.summary("foreground_iou").difference.value == pytest.approx(-0.5)
    # Where nothing was found before either, the difference is 0: the interval is that of the pairs.
    assert worse.summary("foreground_iou").difference.interval == (-1.0, 0.0)


def test_a_letterbox_is_undone_and_borders_left_in_would_show(tmp_path, monkeypatch):
    data = tmp_path / "data"
    for index in range(2):
        write_pair(data, f"tall{index}", box(192, 96, top=30 + 20 * index))
    for rule in ("letterbox", "stretch"):
        (found,) = evaluate(write_recipe(tmp_path / rule, rule=rule), data=data, options=STILL).evaluations
        assert found.summary("foreground_iou").estimate.value > 0.93, rule
    monkeypatch.setattr(
        "deploykit.evaluation.predict.fit_mask_to_photo",
        lambda mask, spec, height, width: cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST),
    )
    for rule, right in (("letterbox", False), ("stretch", True)):
        (found,) = evaluate(tmp_path / rule / "bright.toml", data=data, options=STILL).evaluations
        assert (found.summary("foreground_iou").estimate.value > 0.93) is right, rule


def test_undefined_metrics_are_counted_and_left_out_of_the_mean(bright, tmp_path):
    data = tmp_path / "data"
    write_pair(data, "empty", np.zeros((64, 96), bool))
    write_pair(data, "full", np.ones((64, 96), bool))
    write_pair(data, "box", box())
    (found,) = evaluate(bright, data=data, options=STILL).evaluations
    for metric in ("edge_iou", "boundary_f1"):
        summary = found.summary(metric)
        assert (summary.count, summary.undefined, summary.estimate.value) == (1, 2, 1.0)
        assert summary.estimate.interval is None, "one image has no interval"
    assert found.summary("foreground_iou").count == 3
    (data / "images" / "box.png").unlink()
    (data / "masks" / "box.png").unlink()
    (found,) = evaluate(bright, data=data, options=STILL).evaluations
    assert found.summary("edge_iou").estimate is None
    assert found.summary("foreground_iou").estimate.value == 1.0


def test_the_bundled_set_is_scored_as_training_scores_it():
    """The synthetic portraits are drawn at the input's size: the figures are those of checkpoints/manifest.toml."""
    run = evaluate("sinet", options=Options(samples=4, clips=0))
    (found,) = run.evaluations
    portraits = [synthesize(seed, 224) for seed in HELD_OUT_SEEDS[:4]]
    drawn = np.stack([np.dstack([one.image, one.mask]) for one in portraits])
    expected = score(load("sinet").module, PLANS["sinet"], drawn)
    assert found.summary("foreground_iou").estimate.value == pytest.approx(expected.foreground_iou, abs=1e-9)
    assert found.summary("two_class_miou").estimate.value == pytest.approx(expected.two_class_miou, abs=1e-9)
    assert found.summary("foreground_iou").estimate.value > 0.9
    assert [image.name for image in found.images] == ["900000", "900001", "900002", "900003"]
    assert found.input_size == (224, 224)


def test_a_video_network_gets_its_own_mask_of_the_frame_before(tmp_path, exported):
    recipe = write_recipe(tmp_path, "blinking")
    steady = write_recipe(tmp_path, "bright", level=-1.0)
    run = evaluate(recipe, exported["blinking"], steady, options=Options(samples=2, clips=2))
    blinking, file, always = run.evaluations
    for one in (blinking, file):
        # All portrait, then none, then all: every pixel's error changes in every frame.
        assert one.summary("flicker").estimate.value == 1.0
        assert [clip.frames for clip in one.clips] == [CLIP_FRAMES] * 2
        # A single image is a first frame, for which the portrait is everywhere.
        for image in one.images:
            assert image.counts.true_negative == image.counts.false_negative == 0
    for clip, other in zip(blinking.clips, always.clips, strict=True):
        masks = synthesize_clip(clip.seed, 96, CLIP_FRAMES).masks
        assert other.foreground_iou == pytest.approx(masks.mean())
        assert clip.foreground_iou == pytest.approx(masks[::2].mean() / 2), "every other frame is empty"
    assert always.summary("flicker").estimate.value == 0.0, "what is always the same does not flicker"
    assert file.clips == blinking.clips


def test_scores_that_are_not_finite_give_no_mask(tmp_path):
    network = load(load_recipe(write_recipe(tmp_path)))
    with torch.no_grad():
        network.module.gain.weight.fill_(3e38)
    with pytest.raises(VerificationError, match="not finite") as refused:
        evaluate(network, options=Options(samples=1, clips=0))
    assert refused.value.exit_code == 1


def test_a_network_that_takes_no_photo_alone_is_refused(tmp_path):
    path = write_recipe(tmp_path, "blinking")
    text = path.read_text()
    path.write_text(text.replace('feedback = { output = "logits", class_name = "portrait", first = 0.0 }\n', ""))
    with pytest.raises(RecipeError, match="cannot be evaluated") as refused:
        evaluate(path, options=STILL)
    assert "prior (tensor)" in str(refused.value.found)
    path.write_text(text.replace('classes = ["background", "portrait"]\n', "").replace("feedback = {", "#"))
    with pytest.raises(RecipeError, match="cannot be evaluated"):
        evaluate(path, options=STILL)


def test_subjects_of_every_kind_keep_their_order_and_get_names(tmp_path, monkeypatch, bright, exported):
    monkeypatch.chdir(tmp_path)
    torch.save(load("sinet").module.state_dict(), tmp_path / "mine.pt")
    few = Options(samples=1, clips=0)
    named = [str(exported["bright"].path), "mine.pt", "sinet", bright]
    assert [one.subject for one in evaluate(*named, options=few).evaluations] == [
        "bright onnx fp32",
        "mine.pt",
        "sinet",
        "bright",
    ]
    folder = exported["bright"].path.parents[2]
    assert [one.subject for one in evaluate(folder, options=few).evaluations] == [
        "blinking onnx fp32",
        "bright onnx fp32",
    ]
    (chosen,) = evaluate("sinet", checkpoint="mine.pt", options=few).evaluations
    assert chosen.subject == "sinet"
    first, second = evaluate(exported["bright"], checkpoint="mine.pt", options=few).evaluations
    assert (first.subject, second.subject) == ("sinet", "bright onnx fp32")
    (tmp_path / "deploykit.toml").write_text('recipe = "bright/bright.toml"\n')
    assert evaluate(options=few).evaluations[0].recipe == "bright", "the project's recipe"
    assert evaluate(bright.with_suffix(".pt"), options=few).evaluations[0].recipe == "bright"


def test_two_files_of_one_kind_are_told_apart_by_their_path(tmp_path, exported):
    import shutil

    source = exported["bright"].path.parent
    for name in ("one", "two"):
        shutil.copytree(source, tmp_path / name)
    run = evaluate(tmp_path / "one", tmp_path / "two", options=Options(samples=1, clips=0))
    assert [one.subject for one in run.evaluations] == ["one/bright.onnx", "two/bright.onnx"]


@pytest.mark.parametrize(
    ("named", "error", "text"),
    [
        (["nosuch"], UsageError, "nothing that can be evaluated"),
        (["sinet", "sinet"], UsageError, "given twice"),
        (["absent/model.onnx"], ArtifactError, "no such file"),
        (["."], ArtifactError, "no artifact in the folder"),
        (["bare.onnx"], ArtifactError, "no manifest"),
    ],
)
def test_what_is_no_subject_is_refused(tmp_path, monkeypatch, exported, named, error, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bare.onnx").write_bytes(exported["bright"].path.read_bytes())
    with pytest.raises(error, match=text):
        evaluate(*named, options=STILL)


def test_a_changed_file_is_refused(tmp_path, exported):
    import shutil

    shutil.copytree(exported["bright"].path.parent, tmp_path / "changed")
    with (tmp_path / "changed" / "bright.onnx").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(ArtifactError, match="not the one that its manifest describes"):
        evaluate(tmp_path / "changed", options=STILL)


@pytest.mark.parametrize(
    "options",
    [
        Options(samples=0),
        Options(samples=129),
        Options(clips=-1),
        Options(clips=65),
        Options(edge_sigma=0),
        Options(edge_sigma=float("nan")),
        Options(threads=0),
        Options(skip_invalid=True),
        Options(mask_threshold=0.5),
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UsageError):
        evaluate("sinet", options=options)


@pytest.mark.parametrize("options", [Options(samples=3), Options(mask_threshold=0.0), Options(mask_threshold=1.5)])
def test_options_that_do_not_go_with_a_folder_are_refused(options, data):
    with pytest.raises(UsageError):
        evaluate("sinet", data=data, options=options)


def test_two_recipes_do_not_share_a_checkpoint(tmp_path):
    with pytest.raises(UsageError, match="one recipe"):
        evaluate("sinet", "rcrnet", checkpoint=tmp_path / "any.pt", options=STILL)
