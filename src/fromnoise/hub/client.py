"""Talking to the hub through its client, every failure told as one line that says what to do.

The token is the client's affair (HF_TOKEN, or its login): it is never read, kept or shown here. HF_ENDPOINT and
HF_HUB_OFFLINE are the client's as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fromnoise.hub.names import MAIN
from fromnoise.runtime.errors import FromnoiseError, UsageError

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo
    from huggingface_hub.hf_api import RepoSibling

LOGIN = "log in with `hf auth login`, or set HF_TOKEN"
TIMEOUT_S = 30


class UnreachableError(FromnoiseError):
    """The hub can't be asked: no network, or offline mode is on."""


@dataclass(frozen=True)
class Listed:
    """A file as the hub lists it. `hash` is its SHA-256 where it is a large one, else git's SHA-1."""

    name: str
    size: int
    hash: str


@dataclass(frozen=True)
class Listing:
    """One commit of a repository, as the hub tells it. `private` is None where it doesn't say."""

    repository: str
    commit: str
    files: Mapping[str, Listed]
    licence: str | None
    private: bool | None = None

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(each.size for each in self.files.values())


def api() -> HfApi:
    """The client, asking the endpoint that HF_ENDPOINT names."""
    require_client()
    from huggingface_hub import HfApi

    return HfApi(library_name="fromnoise")


def listing(repository: str, revision: str = MAIN) -> Listing:
    """What a repository holds at a revision.

    Raises UnreachableError when the hub can't be asked, UsageError when it has no such repository or revision, and
    FromnoiseError when it does not let this person in or names files that would lie outside the folder.
    """
    with clear(repository, revision):
        info = api().model_info(repository, revision=revision, files_metadata=True, timeout=TIMEOUT_S)
    files = [_listed(repository, each) for each in info.siblings or ()]
    commit = _hexadecimal(str(info.sha))
    held = MappingProxyType({each.name: each for each in files})
    return Listing(repository, commit, held, _licence(info), info.private)


@contextmanager
def clear(repository: str, revision: str = MAIN) -> Iterator[None]:
    """Turn whatever the client raises inside into an error of ours, without the client's own words or traceback."""
    from huggingface_hub.errors import (
        HFValidationError,
        HTTPError,  # the client's HTTP library, whichever it is
        OfflineModeIsEnabled,
    )

    try:
        yield
    except OfflineModeIsEnabled:
        raise UnreachableError("offline mode is on; unset HF_HUB_OFFLINE to ask the hub") from None
    except HTTPError as error:
        raise _told(error, repository, revision) from None
    except HFValidationError:
        raise UsageError(f"{repository!r} is no name on the hub; it looks like owner/name") from None
    except ValueError:
        raise UsageError("HF_ENDPOINT or HF_TOKEN can't be used; check what they are set to") from None


def require_client() -> None:
    """UsageError where the client can't be imported, since it reads HF_ENDPOINT then and that is no address."""
    with clear(""):
        import huggingface_hub.constants  # noqa: F401


def endpoint() -> str:
    """Where the hub is, without a name or password that may stand in its address."""
    from huggingface_hub import constants

    return re.sub(r"//[^/@]*@", "//", constants.ENDPOINT)


def _listed(repository: str, sibling: RepoSibling) -> Listed:
    name = sibling.rfilename
    if PurePosixPath(name).is_absolute() or {"..", "."} & set(name.split("/")) or "\\" in name or ":" in name:
        raise FromnoiseError(
            f"{repository} names a file {name!r}, which would lie outside its folder; nothing is fetched"
        )
    if sibling.size is None or not (sibling.lfs or sibling.blob_id):
        raise FromnoiseError(f"{endpoint()} tells no size or hash of {name}; without them nothing can be checked")
    return Listed(name, sibling.size, _hexadecimal(sibling.lfs.sha256 if sibling.lfs else str(sibling.blob_id)))


def _hexadecimal(text: str) -> str:
    """A commit or hash as it is told; it becomes a file's name, so nothing else will do."""
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", text):
        raise FromnoiseError(f"{endpoint()} does not answer as a hub does ({text[:64]!r} is no hash); see HF_ENDPOINT")
    return text


def _licence(info: ModelInfo) -> str | None:
    stated = info.card_data.get("license") if info.card_data else None
    return licence_text(stated, info.card_data.get("license_name") if info.card_data else None)


def licence_text(stated: Any, name: Any = None) -> str | None:
    """What a model card's `license` and `license_name` come to; None when it states none."""
    if stated == "other" and name:
        return str(name)
    return ", ".join(map(str, stated)) if isinstance(stated, list) else str(stated) if stated else None


def _told(error: Any, repository: str, revision: str) -> FromnoiseError:
    """What an error of the client means to a person."""
    from huggingface_hub import errors

    sentences: Mapping[type, Callable[[], FromnoiseError]] = {
        errors.GatedRepoError: lambda: FromnoiseError(
            f"{repository} is gated: accept its conditions at {endpoint()}/{repository}, then {LOGIN}"
        ),
        errors.DisabledRepoError: lambda: FromnoiseError(f"{repository} was disabled by the hub"),
        errors.RepositoryNotFoundError: lambda: UsageError(
            f"there is no {repository} at {endpoint()}, or it is private: check the name, or {LOGIN}"
        ),
        errors.RevisionNotFoundError: lambda: UsageError(
            f"{repository} has no revision {revision}; leave out --revision for {MAIN}"
        ),
        errors.RemoteEntryNotFoundError: lambda: FromnoiseError(
            f"{repository} no longer has a file that it listed; pull again"
        ),
    }
    sentence = next((sentence for kind, sentence in sentences.items() if isinstance(error, kind)), None)
    if sentence is not None:
        return sentence()
    response = getattr(error, "response", None)
    if response is None:
        kind = type(error).__name__
        return UnreachableError(f"no answer from {endpoint()} ({kind}); check the network and try again")
    return _by_status(response.status_code, repository)


STATUSES: Mapping[int, str] = MappingProxyType(
    {
        401: "the hub does not accept the token: {login} again",
        403: "the token may not do that with {repository}; make one that may at {endpoint}/settings/tokens and {login}",
        413: "the hub finds a file too large",
        429: "the hub asks to slow down; wait some minutes and try again",
    }
)


def _by_status(status: int, repository: str) -> FromnoiseError:
    told = STATUSES.get(status, "{endpoint} answered {status} about {repository}; try again later")
    return FromnoiseError(told.format(login=LOGIN, repository=repository, endpoint=endpoint(), status=status))
