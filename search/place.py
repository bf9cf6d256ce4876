"""Places to write to, and the refusal to write over what somebody else put there."""

from __future__ import annotations

from pathlib import Path

from tasks.errors import InputError

_HEAD_BYTES = 4096

STUDY_FILES = ("study.yaml", "study.json", "study.journal", "result.json", "questions.parquet")
STUDY_FOLDERS = ("outcomes", "logs")


def check_study_place(folder: Path, given: Path | None = None) -> None:
    """Raise InputError if a new study in `folder` would write over what is no study's.

    `given` is the file that it is launched from. A folder in which a driver has begun has its
    lease, so the same command may be tried again after a launch that failed.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give the study a folder with --out")
    if given is not None and (folder / "study.yaml").resolve() == given.resolve():
        raise InputError(
            f"a study in {folder} would replace your {given} with its own copy; "
            "choose another folder with --out"
        )
    if (folder / "lease").is_dir():
        return
    taken = [name for name in STUDY_FILES if (folder / name).exists()]
    taken += [name for name in STUDY_FOLDERS if any((folder / name).glob("*"))]
    if taken:
        raise InputError(
            f"{folder} holds {', '.join(taken)}, which a study there would replace; "
            "choose another folder with --out"
        )


def check_file(path: Path, mark: str, option: str) -> None:
    """Raise InputError if `path` is a file that this program did not write.

    `mark` is what near their beginning all files have that it writes there.
    """
    if not path.exists():
        return
    if path.is_dir():
        raise InputError(f"{path} is a folder; give a file with {option}")
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if head and mark.encode() not in head:
        raise InputError(
            f"{path} exists and was not written by this command; choose another with {option}"
        )


def check_folder(path: Path, sign: str, mark: str, option: str) -> None:
    """Raise InputError if `path` holds files, but not this program's own `sign` with its `mark`."""
    if path.is_file():
        raise InputError(f"{path} is a file; give a folder with {option}")
    if path.is_dir() and any(path.iterdir()) and not (path / sign).is_file():
        raise InputError(
            f"{path} contains other files, which could be overwritten; choose another with {option}"
        )
    check_file(path / sign, mark, option)
