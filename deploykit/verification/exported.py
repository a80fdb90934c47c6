"""The file that is verified: where it is, what its manifest says, in which precision it is to be judged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploykit.artifact import MANIFEST, changed_files, find_artifacts, read_artifact
from deploykit.chatter import contained
from deploykit.errors import ArtifactError, DeploykitError, UsageError, VerificationError
from deploykit.records import Artifact
from deploykit.targets.base import Runtime
from deploykit.targets.contents import FileContents
from deploykit.targets.table import TARGETS, part, require, target_of
from deploykit.vocab import OutputKind, Precision, Target

_OURS = b'"deploykit"'
_PRECISIONS = {"float32": Precision.FP32, "float16": Precision.FP16, "int8": Precision.INT8, "uint8": Precision.INT8}


@dataclass(frozen=True)
class ExportedFile:
    """One file or package; ``artifact`` is what its manifest says, ``changed`` which files it no longer describes."""

    path: Path
    target: Target
    artifact: Artifact | None
    changed: tuple[str, ...]

    @property
    def manifest(self) -> Path | None:
        """The manifest that describes the file."""
        return self.path.parent / MANIFEST if self.artifact else None

    @property
    def output_kind(self) -> OutputKind | None:
        """What its outputs hold, as its manifest says; None where that has to be told from the values."""
        kind = OutputKind.LOGITS if self.artifact is None else self.artifact.plan.output_kind
        return None if kind is OutputKind.LOGITS else kind


def looks_exported(path: Path) -> bool:
    """Return whether ``path`` names an exported file, a manifest or a folder, and not a checkpoint."""
    return path.name == MANIFEST or path.is_dir() or path.suffix.lower() in _suffixes()


def find_file(named: Artifact | Path | str) -> ExportedFile:
    """Return the file that ``named`` is, lies in, or has as its manifest.

    Raises ArtifactError where nothing is there or the manifest is damaged, UsageError for a folder of several
    artifacts, TargetError for a file of an unknown format.
    """
    if isinstance(named, Artifact):
        return _described(named)
    path = Path(named)
    if not path.exists():
        raise ArtifactError(
            "There is no such file.",
            where=str(path),
            found="nothing",
            expected="an exported file, its folder or its manifest",
        )
    if path.name == MANIFEST:
        return _described(read_artifact(path))
    if path.is_dir() and path.suffix.lower() not in _suffixes():
        return _only(path, find_artifacts(path))
    target = target_of(path)
    artifact = _beside(path)
    return ExportedFile(path, target, None, ()) if artifact is None else _described(artifact)


def _suffixes() -> set[str]:
    return {row.suffix for row in TARGETS.values()}


def _described(artifact: Artifact) -> ExportedFile:
    changed = changed_files(artifact)
    if not artifact.path.exists():
        raise ArtifactError(
            "The file that the manifest describes is missing.",
            where=str(artifact.path),
            found="nothing",
            expected=f"the files of {MANIFEST} beside it: " + ", ".join(item.path for item in artifact.files),
            next_step="restore it, or export again",
        )
    return ExportedFile(artifact.path, artifact.plan.target, artifact, changed)


def _only(folder: Path, artifacts: tuple[Artifact, ...]) -> ExportedFile:
    if len(artifacts) == 1:
        return _described(artifacts[0])
    listed = ", ".join(str(one.path.relative_to(folder)) for one in artifacts[:6])
    if artifacts:
        raise UsageError(
            "The folder holds several artifacts.",
            where=str(folder),
            found=listed + (", ..." if len(artifacts) > 6 else ""),
            expected="one file",
            next_step="name one of them",
        )
    raise ArtifactError(
        "There is no artifact in the folder.",
        where=str(folder),
        found=f"no {MANIFEST} in it or below it",
        expected="an exported file, or a folder that deploykit export wrote",
        next_step="name the file itself",
    )


def _beside(path: Path) -> Artifact | None:
    """Return what the manifest beside ``path`` says of it; None where there is none, or it is of another program."""
    manifest = path.parent / MANIFEST
    if not manifest.is_file():
        return None
    try:
        artifact = read_artifact(manifest)
    except ArtifactError:
        try:
            ours = _OURS in manifest.read_bytes()
        except OSError:
            ours = True
        if ours:
            raise
        return None
    return artifact if artifact.path.resolve() == path.resolve() else None


@contextmanager
def opened(file: ExportedFile, threads: int) -> Iterator[Runtime]:
    """Yield ``file`` in its runtime. Raises as ``opened_everywhere`` does."""
    with opened_everywhere(file, threads) as runtimes:
        yield runtimes[0]


@contextmanager
def opened_everywhere(file: ExportedFile, threads: int) -> Iterator[tuple[Runtime, ...]]:
    """Yield ``file`` in every runtime of its target that is on this machine, the one that users get first.

    Raises TargetError where the target is not installed, ArtifactError where the file cannot be loaded, and
    VerificationError where it cannot and is not the file of its manifest.
    """
    require(file.target)
    with ExitStack() as stack:
        try:
            with contained():
                module = part(file.target, "runtime")
                open_all = getattr(module, "open_all", lambda path, threads: (module.open_artifact(path, threads),))
                runtimes = tuple(stack.enter_context(one) for one in open_all(file.path, threads))
        except DeploykitError as error:
            raise _not_loaded(file, error.found or error.message, error) from error
        except Exception as error:
            # Runtimes and readers of damaged files raise bare exceptions of many classes.
            raise _not_loaded(file, f"{type(error).__name__}: {str(error).strip()[:400]}", error) from error
        yield runtimes


def _not_loaded(file: ExportedFile, found: str, error: Exception) -> DeploykitError:
    if file.changed:
        return VerificationError(
            "The file was changed since its manifest was written, and its runtime does not load it.",
            where=str(file.path),
            found=f"changed, missing or added: {', '.join(file.changed)}; {found}",
            expected=f"the files of {MANIFEST} beside it",
            next_step="export again",
        )
    if isinstance(error, DeploykitError):
        return error
    return ArtifactError(
        f"The {file.target} file cannot be loaded.",
        where=str(file.path),
        found=found,
        expected=f"a model that {TARGETS[file.target].runtime} runs",
    )


def precision_of(file: ExportedFile, given: Precision | None) -> tuple[Precision, str]:
    """Return in which precision ``file`` is judged, and who says so: the caller, its manifest, or its weights.

    Raises UsageError where its weights are of a precision that recipes have no tolerances for.
    """
    if given is not None:
        return given, "as asked for"
    if file.artifact is not None:
        return file.artifact.plan.precision, "as its manifest says"
    with contained():
        contents: FileContents = part(file.target, "inspection").read_contents(file.path)
    sizes = {item.dtype: item.size_bytes for item in contents.weights if item.values > 1}
    widest = max(sizes, key=lambda dtype: sizes[dtype], default="float32")
    if widest not in _PRECISIONS:
        raise UsageError(
            "The precision of the file cannot be told from its weights.",
            where=str(file.path),
            found=f"{widest} weights, {sizes[widest]} bytes of them",
            expected="mostly float32, float16 or 8-bit weights",
            next_step="say which tolerances to judge it by: --precision " + ", ".join(Precision),
        )
    return _PRECISIONS[widest], f"most of its weights are {widest}"
