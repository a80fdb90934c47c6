"""``deploykit preview``: an exported file at work on images, videos and a camera, as files or in a browser tab."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploykit.cli.options import JsonOption, VerboseOption
from deploykit.preview.choices import Picture, Preset

if TYPE_CHECKING:
    from rich.table import Table

    from deploykit.preview.records import PreviewRun


def preview(
    artifacts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ARTIFACT",
            help="Exported files or their folders; several are shown beside each other.",
            show_default=False,
        ),
    ] = None,
    *,
    source: Annotated[
        str,
        typer.Option("--input", help="An image, a folder of frames, a video, camera, or camera:1 for the second one."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            help="A .png, .webp or .jpg for an image; else a .mp4, or a folder for PNG frames.",
            show_default="preview.png, preview or preview.mp4; nothing with --show",
        ),
    ] = None,
    picture: Annotated[
        Picture | None,
        typer.Option("--picture", help="What to make of each frame.", show_default="cut-out, or background with one"),
    ] = None,
    background: Annotated[
        str | None,
        typer.Option("--background", help="Behind the person: an image, #rrggbb, or blur.", show_default=False),
    ] = None,
    side_by_side: Annotated[bool, typer.Option("--side-by-side", help="Put the source beside it.")] = False,
    hard_edges: Annotated[
        bool, typer.Option("--hard-edges", help="Cut the mask at one half instead of blending by the probability.")
    ] = False,
    opening: Annotated[
        int | None,
        typer.Option("--open", metavar="N", help="Erode, then dilate by N x N pixels, N odd.", show_default=False),
    ] = None,
    fuse: Annotated[
        bool, typer.Option("--fuse", help="Blend each mask with the one before, moved along the optical flow.")
    ] = False,
    flow: Annotated[Preset, typer.Option("--flow", help="How thorough the optical flow is.")] = Preset.FAST,
    frames: Annotated[
        int | None, typer.Option("--frames", metavar="N", help="At most so many frames.", show_default=False)
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            "--fps", help="Frames per second of the video that is written.", show_default="the input's, 25 for a folder"
        ),
    ] = None,
    codec: Annotated[
        str | None,
        typer.Option("--codec", help="Four letters.", show_default="avc1 where OpenCV has it, else mp4v"),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Show it in a browser tab of this computer.")] = False,
    no_open: Annotated[bool, typer.Option("--no-open", help="With --show: only print the address.")] = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="With --show: 0 takes a free one.")] = 0,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of every runtime, and of OpenCV.")] = 1,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """See an exported file at work: the person cut out of an image, a video or what a camera sees.

    Edges are soft: between 1/4 and 3/4 the probability says how much of the person a pixel shows; --picture mask is
    the probability itself. One cut-out alone has a transparent ground in .png, .webp and PNG frames, a chequered one
    elsewhere. A network for video gets its own output of the frame before. --open and --fuse are the
    post-processing of the virtual-background report (section 3.4), each by itself; the flicker that is measured with
    and without --fuse is the share of pixels whose class changes along the optical flow.

    A video that is cut off, a frame that cannot be read, and Ctrl-C keep the frames so far as a whole file; the exit
    code is then 1, or 0 where a camera or --show was ended by Ctrl-C. So does a frame of another size than the first
    one for a .mp4 and with --fuse; frames that become a folder of PNGs, or are only shown, may differ in size.
    Videos have no sound. deploykit export sinet --target onnx writes a file to begin with.
    """
    from deploykit.cli.console import print_json, progress, stderr_console, stdout_console
    from deploykit.errors import EXIT_FAILED, UsageError
    from deploykit.preview.play import preview as play
    from deploykit.preview.records import Ended, Kind, Options
    from deploykit.records import versioned
    from deploykit.vocab import in_words

    del verbose
    if not artifacts:
        raise UsageError(
            "There is nothing to run.",
            found="no ARTIFACT",
            expected="an exported file, or its folder",
            next_step="deploykit export sinet --target onnx, then name the folder that it prints",
        )
    if (no_open or port) and not show:
        raise UsageError("--no-open and --port belong to --show.", expected="--show as well, or neither")
    options = Options(
        picture=picture or (Picture.CUT_OUT if background is None else Picture.BACKGROUND),
        background=background,
        side_by_side=side_by_side,
        hard_edges=hard_edges,
        open_pixels=0 if opening is None else opening,
        fuse=fuse,
        preset=flow,
        most_frames=frames,
        fps=fps,
        codec=codec,
        threads=threads,
    )
    if opening is not None:
        from deploykit.preview.morphology import require_kernel

        require_kernel(opening)
    console = stderr_console()
    with _interrupts() as (stopped, wait), _shown(show, port, browse=not no_open) as publish:
        with progress("preview") as say:
            run = play(artifacts, source, output, options, publish=publish, report=say, stopped=stopped)
        if show and run.ended is Ended.COMPLETE:
            console.print("That was the last frame; Ctrl-C ends the preview.")
            wait()
    if as_json:
        print_json(versioned("preview", run))
    else:
        results = stdout_console()
        results.print(_stages(run))
        results.print(_artifacts(run))
        if run.output is not None:
            results.print(f"{in_words(run.frames, 'frame')}: {run.output.as_posix()}", markup=False)
    if run.problem is not None:
        console.print(f"deploykit: error: {run.problem}\n  kept: {in_words(run.frames, 'frame')} before", markup=False)
        raise typer.Exit(EXIT_FAILED)
    if run.ended is Ended.STOPPED and not (show or run.kind is Kind.CAMERA):
        console.print(f"stopped by Ctrl-C: {in_words(run.frames, 'frame')} kept", markup=False)
        raise typer.Exit(EXIT_FAILED)


@contextmanager
def _interrupts() -> Iterator[tuple[Callable[[], bool], Callable[[], object]]]:
    """Yield whether Ctrl-C was pressed, and a way to wait for it; a second one ends everything at once."""
    import signal
    from threading import Event

    pressed = Event()

    def press(number: int, frame: object) -> None:
        del number, frame
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    def wait() -> None:
        while not pressed.wait(timeout=0.2):
            pass

    before = signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set, wait
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _shown(show: bool, port: int, *, browse: bool) -> Iterator[Callable[..., None] | None]:
    """Yield what takes pictures for a browser tab, whose address is printed; None without ``show``."""
    if not show:
        yield None
        return
    import webbrowser

    from deploykit.cli.console import stderr_console
    from deploykit.preview.stream import Stream

    stream = Stream(port)
    try:
        stderr_console().print(f"preview: {stream.address}", markup=False, soft_wrap=True)
        if browse:
            webbrowser.open(stream.address)
        yield stream.publish
    finally:
        stream.close()


def _size(run: PreviewRun) -> str:
    last = f"{run.width}x{run.height}"
    return last if run.sizes < 2 else f"of {run.sizes} sizes, the last one {last}"


def _stages(run: PreviewRun) -> Table:
    from rich.table import Table

    from deploykit.vocab import in_words

    table = Table(
        title=f"{in_words(run.frames, 'frame')}, {_size(run)}, {run.fps:.1f} a second",
        title_justify="left",
        caption=f"Two threads share the stages. Processor time of the whole process: {run.cpu_s_per_frame * 1e3:.1f} "
        "ms a frame, starting included.",
        caption_justify="left",
    )
    table.add_column("stage")
    for column in ("ms a frame", "processor ms"):
        table.add_column(column, justify="right")
    for stage in run.stages:
        table.add_row(stage.name, f"{stage.wall_s * 1e3:.2f}", f"{stage.cpu_s * 1e3:.2f}")
    return table


def _artifacts(run: PreviewRun) -> Table:
    from rich.markup import escape
    from rich.table import Table

    fused = run.options.fuse
    table = Table(title="What was run", title_justify="left")
    for column in ("artifact", "runtime"):
        table.add_column(column, overflow="fold")
    for column in ("foreground", "flicker", *(("flicker fused",) if fused else ())):
        table.add_column(column, justify="right")
    for one in run.previewed:
        cells = [one.flicker, *((one.flicker_fused,) if fused else ())]
        flickers = ["-" if value is None else f"{value:.2%}" for value in cells]
        table.add_row(escape(one.name), escape(one.runtime), f"{one.foreground:.1%}", *flickers)
    return table
