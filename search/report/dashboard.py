"""optuna-dashboard over a study, for reading and on loopback, with our files beside its plots."""

from __future__ import annotations

import copy
import io
import json
import mimetypes
import uuid
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.report.html import render
from search.study.identity import FILE as IDENTITY_FILE
from search.study.jobs import BASELINE, TEST_BASELINE, test_name, trial_name
from search.study.outcomes import outcome_file
from search.study.questions import FILE as QUESTIONS_FILE
from search.study.storages import open_storage
from search.study.study_record import StudyRecord
from search.study.verdict import FILE as RESULT_FILE
from tasks.errors import InputError

HOST = "127.0.0.1"
PREFIX = "artifacts:"
REPORT = "report.html"


def open_server(record: StudyRecord, port: int) -> WSGIServer:
    """A server of the dashboard on loopback, not yet serving; port 0 picks a free port.

    Raises InputError if optuna-dashboard is not installed or the port is taken.
    """
    try:
        import optuna_dashboard
    except ImportError:
        raise InputError(
            "optuna-dashboard is not installed; install laser-search[dashboard]"
        ) from None
    storage = open_storage(record.folder, record.config.storage)
    files = StudyFiles(record)
    app = optuna_dashboard.wsgi(ReadOnlyStorage(storage, files.notes()), artifact_store=files)
    try:
        return make_server(HOST, port, app, handler_class=_Quiet)
    except OSError as error:
        raise InputError(
            f"port {port} is not available ({error.strerror or error}); choose another with --port"
        ) from None


class StudyFiles:
    """The study's files as optuna's artefacts: report, result, configuration, questions, outcomes.

    Ids are digests of names, so that a restart of the server keeps its links.
    """

    def __init__(self, record: StudyRecord) -> None:
        """The report is made when it is first opened."""
        self._record = record
        winner = record.summary.winner
        names = [BASELINE, TEST_BASELINE]
        if winner is not None:
            names += [trial_name(winner.number), test_name(winner.number)]
        folder = record.folder
        plain = ["study.yaml", IDENTITY_FILE, RESULT_FILE, QUESTIONS_FILE]
        paths = [folder / name for name in plain] + [outcome_file(folder, n) for n in names]
        self._paths: dict[str, Path | None] = {_id(REPORT): None}
        self._paths |= {_id(path.name): path for path in paths if path.is_file()}

    def notes(self) -> dict[str, str]:
        """Study attributes that tell the dashboard of the files."""
        found = {}
        for key, path in self._paths.items():
            name = REPORT if path is None else path.name
            kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
            facts = {"artifact_id": key, "filename": name, "mimetype": kind, "encoding": None}
            found[f"{PREFIX}{key}"] = json.dumps(facts)
        return found

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open one file. Raises ArtifactNotFound."""
        from optuna.artifacts.exceptions import ArtifactNotFound

        if artifact_id not in self._paths:
            raise ArtifactNotFound(artifact_id)
        path = self._paths[artifact_id]
        if path is None:
            return io.BytesIO(render(self._record).encode())
        return path.open("rb")

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Refused: the study folder is written by its driver alone."""
        _refuse()

    def remove(self, artifact_id: str) -> None:
        """Refused, as `write` is."""
        _refuse()


class ReadOnlyStorage(BaseStorage):
    """A storage for looking: reads are passed on, with `notes` among the study's attributes.

    The dashboard has buttons that delete studies and change trials; a running study survives none.
    """

    def __init__(self, storage: BaseStorage, notes: dict[str, str]) -> None:
        """Take the storage to read, and what to add to every study's system attributes."""
        self._storage = storage
        self._notes = notes

    def get_study_id_from_name(self, study_name: str) -> int:
        """As the storage has it."""
        return self._storage.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        """As the storage has it."""
        return self._storage.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """As the storage has it."""
        return self._storage.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """As the storage has it."""
        return self._storage.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """As the storage has it, and the files."""
        return {**self._storage.get_study_system_attrs(study_id), **self._notes}

    def get_all_studies(self) -> list[Any]:
        """As the storage has it, and the files."""
        studies = [copy.copy(study) for study in self._storage.get_all_studies()]
        for study in studies:
            study.system_attrs = {**study.system_attrs, **self._notes}
        return studies

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """As the storage has it."""
        return self._storage.get_trial(trial_id)

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """As the storage has it."""
        return self._storage.get_all_trials(study_id, deepcopy, states)

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        """Refused."""
        _refuse()

    def delete_study(self, study_id: int) -> None:
        """Refused."""
        _refuse()

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Refused."""
        _refuse()

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Refused."""
        _refuse()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Refused."""
        _refuse()

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """Refused."""
        _refuse()

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Refused."""
        _refuse()

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        """Refused."""
        _refuse()

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Refused."""
        _refuse()

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Refused."""
        _refuse()


class _Quiet(WSGIRequestHandler):
    """Answers without a line in the terminal for every request."""

    def log_message(self, format: str, *args: Any) -> None:  # its name in the library
        """Say nothing."""


def _refuse() -> NoReturn:
    raise PermissionError("this view of the study is for reading")


def _id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"laser-search/{name}"))
