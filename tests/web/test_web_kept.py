"""A benchmark that a page saved as a file becomes the record that the command would have kept."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from web_case import CHECKED, END, HELLO, OPENED, STOPPED, WARM, samples

from deploykit.errors import ArtifactError
from deploykit.latency.subjects import Subject
from deploykit.results.store import read_runs, save_run
from deploykit.web import kept
from deploykit.web.kept import benchmark_of, read_kept


@pytest.fixture
def saved(small_files: tuple[Subject, ...]) -> dict[str, Any]:
    (subject,) = (one for one in small_files if one.path.suffix == ".tflite")
    assert subject.artifact is not None
    events = [HELLO, OPENED, CHECKED, WARM, *(samples(0.01, 0.011) for _ in range(300)), STOPPED, END]
    return {
        "kind": "deploykit web",
        "version": 1,
        "threads": [1],
        "accelerators": ["wasm"],
        "precision_target": None,
        "subjects": [{"name": "small.tflite", "content_hash": subject.artifact.content_hash}],
        "events": copy.deepcopy(events),
    }


def written(folder: Path, body: object) -> Path:
    path = folder / "saved.json"
    path.write_text(json.dumps(body), "utf-8")
    return path


def test_a_saved_benchmark_is_a_record_like_any_other(saved, small_files, tmp_path) -> None:
    path = written(tmp_path, saved)
    result = benchmark_of(read_kept(path), small_files, path)
    (latency,) = result.measured
    assert (latency.driver, latency.network, len(latency.samples_s)) == ("browser", "small", 600)
    assert result.complete
    assert result.started == "1970-01-01T00:16:40+00:00"
    save_run(result, tmp_path / "results")
    assert read_runs(tmp_path / "results").runs[0].measured == (latency,)
    # Without its end it is an interrupted one.
    del saved["events"][-1]
    assert not benchmark_of(read_kept(written(tmp_path, saved)), small_files, path).complete


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "bench"}, "Input should be 'deploykit web'"),
        ({"version": 2}, "version"),
        ({"events": []}, "events"),
        ({"events": [{"event": "exec"}]}, "events.0"),
        ({"more": 1}, "more"),
        ({"events": [HELLO, samples(0.01)]}, "not checked and warmed up"),
        ({"events": [HELLO, {**CHECKED, "subject": "other"}]}, "no such file"),
        ({"subjects": [{"name": "small.tflite", "content_hash": "0" * 64}]}, "not given"),
    ],
)
def test_what_no_page_saved_is_refused(change, message, saved, small_files, tmp_path) -> None:
    path = written(tmp_path, {**saved, **change})
    with pytest.raises(ArtifactError) as caught:
        benchmark_of(read_kept(path), small_files, path)
    assert message in str(caught.value)


def test_a_file_that_is_missing_or_too_large_is_refused(saved, tmp_path, monkeypatch) -> None:
    with pytest.raises(ArtifactError, match="no benchmark that a page saved"):
        read_kept(tmp_path / "none.json")
    path = written(tmp_path, saved)
    monkeypatch.setattr(kept, "MOST_FILE_BYTES", 100)
    with pytest.raises(ArtifactError, match="no benchmark that a page saved") as caught:
        read_kept(path)
    assert f"{path.stat().st_size} bytes" in str(caught.value)
