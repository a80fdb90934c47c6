"""What the papers state beside what is counted here: the deviations, the record of counts and the scores."""

from __future__ import annotations

import tomllib
from functools import cache

import pytest

from deploykit.errors import UsageError
from deploykit.network import build_network
from deploykit.papers.compare import Line, all_wanted, compare, known_names
from deploykit.papers.figures import load_papers
from deploykit.papers.measured import count, held_out, recorded_counts
from deploykit.recipe import bundled_recipes, load_recipe
from deploykit.resources import bundled


def silent(message: str) -> None:
    """Progress that nobody reads."""


@cache
def lines(name: str | None = None) -> tuple[Line, ...]:
    return tuple(line for comparison in compare(load_papers(), name) for line in comparison.lines)


def only(recipe: str, figure: str, **keys: object) -> Line:
    (line,) = [
        line
        for line in lines(recipe if recipe != "rcrnet" else None)
        if (line.recipe, line.figure) == (recipe, figure) and all(getattr(line, k) == v for k, v in keys.items())
    ]
    return line


def test_the_record_holds_each_count_that_is_compared_and_no_other():
    assert set(recorded_counts()) == set(all_wanted(load_papers()))


@pytest.mark.parametrize("recipe", ["elb", "elb-dr4", "portraitnet", "portraitnet-bilinear", "sinet"])
def test_recorded_parameters_are_those_of_the_whole_network(recipe):
    (recorded,) = [
        n for subject, n in recorded_counts().items() if (subject.recipe, subject.figure) == (recipe, "parameters")
    ]
    assert recorded == sum(parameter.numel() for parameter in build_network(load_recipe(recipe)).parameters())


def test_the_record_is_what_is_counted_now():
    subjects = [subject for subject in recorded_counts() if subject.recipe == "sinet"]
    assert count(subjects, silent) == {subject: recorded_counts()[subject] for subject in subjects}


@pytest.mark.full
def test_every_recorded_count_is_what_is_counted_now():
    assert count(all_wanted(load_papers()), silent) == recorded_counts()


@pytest.mark.parametrize(
    ("recipe", "figure", "keys", "percent"),
    [
        ("sinet", "flops_giga", {}, -0.2),
        ("portraitnet", "flops_giga", {"convention": "conv-macs"}, 0.0),
        ("portraitnet", "flops_giga", {"convention": "portraitnet-paper"}, 0.9),
        ("mobilenetv3-sappm", "flops_giga", {"input_size": (512, 512)}, 0.0),
        ("mobilenetv3-sappm", "flops_giga", {"input_size": (224, 224)}, -0.1),
        ("elb", "flops_giga", {}, -0.6),
        ("elb", "params_millions", {}, 9.6),
    ],
)
def test_deviations_of_exact_networks(recipe, figure, keys, percent):
    line = only(recipe, figure, **keys)
    assert line.deviation_percent is not None
    assert round(line.deviation_percent, 1) == percent
    assert line.reason is None


@pytest.mark.parametrize("recipe", ["rcrnet-1", "rcrnet-2", "rcrnet-3"])
def test_the_first_three_rcrnets_are_within_two_percent(recipe):
    for figure in ("params_millions", "flops_giga"):
        line = only(recipe, figure)
        assert line.merged
        assert line.deviation_percent is not None
        assert abs(line.deviation_percent) < 2


def test_rcrnet_4_is_within_four_percent_in_cost_and_its_two_parameter_counts_both_show():
    cost = only("rcrnet", "flops_giga")
    assert cost.deviation_percent is not None
    assert abs(cost.deviation_percent) < 4
    stated = {line.stated for line in lines() if (line.recipe, line.figure) == ("rcrnet", "params_millions")}
    assert stated == {0.772, 0.770}
    (rcrnet,) = compare(load_papers(), "rcrnet")
    assert any("0.772" in remark and "0.770" in remark for remark in rcrnet.remarks)


def test_a_deviation_never_crosses_conventions_datasets_or_devices():
    for line in lines():
        if line.figure == "flops_giga":
            assert line.convention is not None
            assert line.input_size is not None
        if line.figure in ("miou_percent", "fps", "latency_ms"):
            assert line.deviation_percent is None
            assert line.reason
        assert line.stated is not None or line.measured is not None


def test_what_the_paper_leaves_empty_is_counted_all_the_same():
    line = only("elb-dr4", "params_millions")
    assert (line.stated, line.deviation_percent) == (None, None)
    assert line.measured == pytest.approx(0.24, abs=0.01)
    assert line.reason == "the paper leaves it empty"


def test_a_name_adds_what_other_papers_state():
    assert not [line for line in lines() if line.stated == 2.08]
    (line,) = [line for line in lines("portraitnet") if line.stated == 2.08]
    places = [(place.paper, place.place) for place in line.places]
    assert places == [
        ("RCRNet", "Table 1"),
        ("RCRNet", "Table 3"),
        ("SINet", "Table 3"),
        ("MobileNetV3 + SAPPM", "Table 3"),
    ]
    (both,) = [line for line in lines("sinet") if line.stated == 95.29]
    assert both.methods == ("SINet+", "SINet")


def test_a_network_means_its_variants_and_a_recipe_itself():
    assert {line.recipe for line in lines("rcrnet")} == {"rcrnet-1", "rcrnet-2", "rcrnet-3", "rcrnet"}
    assert {line.recipe for line in lines("rcrnet-2")} == {"rcrnet-2"}
    assert lines("mobilenetv3_sappm") == lines("mobilenetv3-sappm")


def test_an_unknown_name_is_refused_with_those_that_are_known():
    with pytest.raises(UsageError) as refused:
        compare(load_papers(), "unet")
    assert refused.value.expected == "one of " + ", ".join(known_names(load_papers()))


def test_the_score_is_that_of_the_bundled_checkpoint_by_the_papers_own_mean():
    manifest = tomllib.loads((bundled("checkpoints") / "manifest.toml").read_text("utf-8"))
    for paper in load_papers():
        key = "held_out_foreground_iou" if paper.miou == "portrait" else "held_out_two_class_miou"
        for recipe in paper.recipes:
            found = [line for line in lines() if line.recipe == recipe and line.dataset == "synthetic portraits"]
            path = load_recipe(recipe).checkpoint_path()
            expected = [] if path is None or path.name not in manifest else [100 * manifest[path.name][key]]
            assert [line.measured for line in found] == expected
            assert all(line.stated is None and line.metric == paper.miou for line in found)


def test_a_recipe_without_a_checkpoint_has_no_score():
    (without,) = [r for r in map(load_recipe, bundled_recipes()) if r.name == "rcrnet-1"]
    assert held_out(without) is None
