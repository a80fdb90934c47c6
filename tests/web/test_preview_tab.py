"""``deploykit preview --show`` in a real browser tab: its picture is there, moves, and goes with the command."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
from browser_case import PATIENCE_MS, Seen, needs_browser

from deploykit.images.synthetic.motion import synthesize_clip

pytestmark = [needs_browser, pytest.mark.full]

PIXEL_SUM = """() => {
  const image = document.querySelector('img');
  const { naturalWidth: width, naturalHeight: height } = image;
  const context = Object.assign(document.createElement('canvas'), { width, height }).getContext('2d');
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, width, height).data.reduce((sum, one) => sum + one, 0);
}"""


def test_the_picture_is_shown_moves_and_ends_with_the_command(browser, small_files, tmp_path) -> None:
    (onnx,) = (one.path for one in small_files if one.path.suffix == ".onnx")
    for index, frame in enumerate(synthesize_clip(930_003, 96, 40).frames):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.ascontiguousarray(frame[:, :, ::-1]))
    command = [sys.executable, "-m", "deploykit", "preview", str(onnx), "--input", str(tmp_path), "--fps", "4"]
    process = subprocess.Popen(
        [*command, "--show", "--no-open"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    seen, said = Seen(), []
    seen.watch(context)
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    try:
        address = next(found[0] for line in process.stderr if (found := re.search(r"http://\S+", line)))
        # A stream that does not end never finishes loading.
        page.goto(address, wait_until="commit")
        page.wait_for_function("() => document.querySelector('img')?.naturalWidth === 96")
        sums = {page.evaluate(PIXEL_SUM) for _ in range(8) if page.wait_for_timeout(300) is None}
        assert len(sums) > 1
        assert 0 not in sums
        assert all(url.startswith((address, "data:")) for url in seen.requests)
        assert (seen.errors, said) == ([], [])
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        context.close()
    assert process.returncode == 0, err
