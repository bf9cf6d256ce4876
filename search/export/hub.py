"""Uploading an export to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from tasks.errors import InputError


def push_folder(folder: Path, repository: str) -> str:
    """Upload every file of `folder` to the model repository, which is made private if it is new.

    The token is huggingface_hub's own affair (HF_TOKEN, or hf auth login); it is neither read nor
    printed here. Returns the address of the commit. Raises InputError if the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    try:
        api.create_repo(repository, repo_type="model", private=True, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            repo_type="model",
            commit_message="Export of laser-search",
        )
    except HFValidationError:
        raise InputError(
            f"{repository!r} is not the name of a repository; give OWNER/NAME (the files are in "
            f"{folder})"
        ) from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise InputError(
            f"the hub refused {repository} ({status}); log in with hf auth login or set HF_TOKEN "
            f"to a token with write access (the files are in {folder})"
        ) from None
    except OSError as error:
        raise InputError(
            f"the hub cannot be reached ({type(error).__name__}); the files are in {folder}"
        ) from None
    return str(done)
