"""HTTP to an archive: who we are and whom we trust, from a file; and what went wrong, in words that name nobody."""

import ipaddress
import json
import logging
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .. import schema
from ..errors import InputError, install

SECONDS = (10, 120)  # to connect; between two bytes of an answer
MOST_BYTES = 1 << 30  # of one answer
FULL = 507  # Insufficient Storage
ORTHANC_FULL = 19  # its number for "The file storage is full", which comes with HTTP 500
GONE = (404, 410)


class ArchiveError(Exception):
    """The archive cannot do it now: away, busy or full. The same may work later."""


class RefusedError(Exception):
    """The archive will not do it: with this film the same will not work later.

    Attributes:
        said: the archive's own answer where it was a JSON object, else empty.
    """

    def __init__(self, text: str, said: dict | None = None):
        super().__init__(text)
        self.said = said or {}


class GoneError(RefusedError):
    """What was asked for is not in the archive, or not any more."""


@dataclass(frozen=True)
class Access:
    """What the file of --access says, as JSON; all of it may be left out.

    Attributes:
        user, password: for HTTP's basic authentication.
        token: sent as `Authorization: Bearer` instead.
        ca: a file with the certificates of those who may vouch for the archive; the system's without it.
        certificate, key: files with ours, where the archive asks for one.
        plain_http: allow http:// to another machine, where everything can be read on the way.
    """

    user: str = ""
    password: str = ""
    token: str = ""
    ca: str = ""
    certificate: str = ""
    key: str = ""
    plain_http: bool = False


def read(file: str) -> Access:
    """Read the file of --access.

    Raises:
        InputError: it cannot be read, other users may read it, or a field is wrong.
    """
    path = Path(file)
    try:
        mode = os.stat(path).st_mode
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"--access {file}: expected a JSON file ({getattr(error, 'strerror', None) or 'not JSON'})"
                         ) from None
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InputError(f"--access {file}: other users may read it; chmod 600 {file}")
    try:
        access = schema.read(Access, fields, f"--access {file}")
    except InputError as error:  # its end quotes what was received, which may be a password
        raise InputError(str(error).split(", received")[0]) from None
    missing = [name for name in (access.ca, access.certificate, access.key) if name and not Path(name).is_file()]
    if missing:
        raise InputError(f"--access {file}: {missing[0]}: no such file")
    if bool(access.user) != bool(access.password) or (access.user and access.token):
        raise InputError(f"--access {file}: expected user and password, or a token")
    return access


class Web:
    """HTTP to one archive; one thread at a time.

    Args:
        address: http:// or https://, with the path that all requests begin with.
        access: who we are.

    Raises:
        InputError: the address is none, or would send films in the clear to another machine.
    """

    def __init__(self, address: str, access: Access):
        try:
            import requests
        except ImportError:
            raise InputError(f"dicom_node needs requests; {install('dicom-node')}") from None
        logging.getLogger("urllib3").setLevel(logging.CRITICAL)  # its warnings quote addresses with UIDs
        self.address = _checked(address, access)
        self.session = requests.Session()
        self.session.trust_env = False  # no proxy and no .netrc: where films go is said by the command alone
        again = requests.adapters.Retry(total=2, connect=2, read=1, status=0, redirect=0, allowed_methods=None,
                                        backoff_factor=0.2)  # a kept connection that was closed; all we ask may repeat
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, requests.adapters.HTTPAdapter(max_retries=again))
        self.session.verify = access.ca or True
        if access.certificate:
            self.session.cert = (access.certificate, access.key) if access.key else access.certificate
        if access.user:
            self.session.auth = (access.user, access.password)
        if access.token:
            self.session.headers["Authorization"] = f"Bearer {access.token}"

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """One request's answer, a requests.Response whose body is read.

        Raises:
            ArchiveError: the archive is away, too slow, busy, full, or failed.
            GoneError: there is no such thing.
            RefusedError: it refuses this request.
            InputError: it does not know us, or we do not trust it.
        """
        import requests

        try:
            answer = self.session.request(method, f"{self.address}{path}", timeout=SECONDS, stream=True,
                                          allow_redirects=False, **more)
            answer._content = _body(answer)
        except requests.exceptions.SSLError:
            raise InputError(f"{self.address}: its certificate is not trusted, or it asks for ours (--access)"
                             ) from None
        except (requests.exceptions.RequestException, OSError):  # their texts quote addresses with UIDs
            raise ArchiveError(f"{self.address} does not answer") from None
        self._check(answer)
        return answer

    def _check(self, answer: Any) -> None:
        code = answer.status_code
        if code in (401, 403):
            raise InputError(f"{self.address}: refuses us (HTTP {code}); see --access")
        if code in GONE:
            raise GoneError("not in the archive any more")
        if code == FULL or (code >= 400 and said(answer).get("OrthancStatus") == ORTHANC_FULL):
            raise ArchiveError(f"{self.address} is full")
        if code >= 500 or code in (408, 429):
            raise ArchiveError(f"{self.address} failed (HTTP {code})")
        if code >= 300:
            raise RefusedError(f"the archive refused (HTTP {code})", said(answer))

    def json(self, method: str, path: str, **more: Any) -> Any:
        """As `ask`, the answer read as JSON.

        Raises:
            ArchiveError: also where it is none.
        """
        answer = self.ask(method, path, **more)
        if answer.status_code == 204:
            return []
        try:
            return answer.json()
        except ValueError:
            raise ArchiveError(f"{self.address} answered something other than JSON; is the address right?") from None


def _checked(address: str, access: Access) -> str:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InputError(f"{address}: expected an address such as http://127.0.0.1:8042")
    if parts.username or parts.password:
        raise InputError("an address with a password is seen by all users of this machine; use --access")
    if parts.scheme == "http" and not access.plain_http and not _is_this_machine(parts.hostname):
        raise InputError(f"{address}: films would go over the network in the clear; use https://, or say "
                         '"plain_http": true in the file of --access')
    return address.rstrip("/")


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _body(answer: Any) -> bytes:
    parts, size = [], 0
    for part in answer.iter_content(1 << 20):
        size += len(part)
        if size > MOST_BYTES:
            answer.close()
            raise RefusedError(f"larger than {MOST_BYTES >> 20} MiB")
        parts.append(part)
    return b"".join(parts)


def said(answer: Any) -> dict:
    """An answer's JSON object, empty where it is none."""
    try:
        found = answer.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
