"""Requests to the API server of Kubernetes, with the official client: the only module that loads it.

What is listed and watched is read as raw JSON: a model of every pod of a cluster would take its memory and a
processor. Errors are told apart as ``ClusterError`` and its kinds. It must not know why something is asked.
"""

from __future__ import annotations

import contextlib
import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException, OpenApiException
from kubernetes.config.config_exception import ConfigException
from urllib3.exceptions import HTTPError

from ipam.operator.errors import ClusterError, Conflict, Expired, NotThere
from ipam.operator.leader import LeaseConflict, LeaseRecord, LeaseUnavailable
from ipam.provision import exchange
from ipam.provision.bound_pods import NOT_ENDED
from ipam.quoting import one_line
from ipam.settings_file import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ipam.operator.settings import LeaseSettings

Json = dict[str, Any]

TIMEOUT: tuple[float, float] = (5.0, 15.0)
"""Seconds to connect, and between two parts of an answer."""
LEASE_TIMEOUT: tuple[float, float] = (2.0, 3.0)
QUIET_SECONDS = 120.0
"""A watch on which nothing came for so long is begun anew: bookmarks come about once a minute."""
WATCH_SECONDS = 600
PAGE = 500
CONNECTIONS = 32
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class ResourceKind:
    """What can be listed and watched: ``watching.Asking``."""

    def __init__(self, name: str, listed: Callable[..., Any], **more: Any) -> None:
        self.name = name
        self._listed = listed
        self._more = more

    def page(self, after: str) -> Json:
        """See there. The items of a list say nothing of their kind."""
        more = {"_continue": after} if after else {}
        with _told(self.name):
            answer = self._listed(
                **self._more, **more, limit=PAGE, _preload_content=False, _request_timeout=TIMEOUT
            )
            with contextlib.closing(answer):
                return _json(answer.read())

    def watch(self, version: str) -> Iterator[Json]:
        """See there."""
        with _told(self.name):
            answer = self._listed(
                **self._more,
                watch=True,
                allow_watch_bookmarks=True,
                resource_version=version,
                timeout_seconds=WATCH_SECONDS,
                _preload_content=False,
                _request_timeout=(TIMEOUT[0], QUIET_SECONDS),
            )
            with contextlib.closing(answer):
                for line in _lines(answer):
                    event = _json(line)
                    if event.get("type") == "ERROR":
                        raise _error_of(self.name, event.get("object") or {})
                    yield event


class ClusterApi:
    """Safe for threads.

    Args:
        kubeconfig: its path; empty: the service account of the pod.

    Raises:
        SettingsError: there is no such way to the API server.
    """

    def __init__(self, kubeconfig: str) -> None:
        access = client.Configuration()
        self.namespace = _configure(access, kubeconfig)
        """Of the pod, or of the kubeconfig's context."""
        access.connection_pool_maxsize = CONNECTIONS
        access.retries = False
        access.keep_alive = True
        made = client.ApiClient(access)
        made.user_agent = "azvnet-operator"
        self._leases: Any = client.CoordinationV1Api(made)
        self._custom: Any = client.CustomObjectsApi(made)
        self._core: Any = client.CoreV1Api(made)
        ours = {"group": exchange.GROUP, "version": exchange.VERSION, "plural": exchange.PLURAL}
        self._ours = ours
        self.azvnet_nodes = ResourceKind("AzvnetNodes", self._custom.list_cluster_custom_object, **ours)
        self.nodes = ResourceKind("Nodes", self._core.list_node)
        bound = f"spec.nodeName!=,{NOT_ENDED}"
        self.pods = ResourceKind("Pods", self._core.list_pod_for_all_namespaces, field_selector=bound)

    def read(self, name: str) -> Json:
        """An AzvnetNode. Raises NotThere, ClusterError.

        It is listed, as the others are: reading one would be another right.
        """
        with _told(name):
            answer = self._custom.list_cluster_custom_object(
                **self._ours,
                field_selector=f"metadata.name={name}",
                _preload_content=False,
                _request_timeout=TIMEOUT,
            )
            with contextlib.closing(answer):
                found: list[Json] = _json(answer.read()).get("items") or []
        if not found:
            raise NotThere(f"{name}: not found")
        return found[0]

    def write_status(self, name: str, changed: Json, version: str) -> Json:
        """Change these fields of the status of an AzvnetNode; the object afterwards.

        Raises:
            Conflict: it is not at that version any more.
            NotThere, ClusterError: see there.
        """
        body = {"metadata": {"resourceVersion": version}, "status": changed}
        with _told(name):
            answer = self._custom.patch_cluster_custom_object_status(
                **self._ours,
                name=name,
                body=body,
                _content_type="application/merge-patch+json",
                _preload_content=False,
                _request_timeout=TIMEOUT,
            )
            with contextlib.closing(answer):
                return _json(answer.read())

    def delete(self, name: str, uid: str, version: str) -> None:
        """Delete an AzvnetNode, if it is still that one. Raises ClusterError."""
        preconditions = client.V1Preconditions(uid=uid, resource_version=version)
        with _told(name), contextlib.suppress(NotThere):
            self._custom.delete_cluster_custom_object(
                **self._ours,
                name=name,
                body=client.V1DeleteOptions(preconditions=preconditions),
                _request_timeout=TIMEOUT,
            )

    def event(self, regarding: Json, reason: str, message: str) -> None:
        """Tell whoever looks at an object of the cluster. Raises ClusterError."""
        now = datetime.datetime.now(datetime.UTC)
        event = client.CoreV1Event(
            metadata=client.V1ObjectMeta(generate_name=f"{regarding['name']}."[:60], namespace="default"),
            involved_object=client.V1ObjectReference(**regarding),
            reason=reason,
            message=message[:1024],
            type="Warning",
            source=client.V1EventSource(component="azvnet-operator"),
            first_timestamp=now,
            last_timestamp=now,
            count=1,
        )
        with _told("Event"):
            self._core.create_namespaced_event("default", event, _request_timeout=TIMEOUT)

    def lease(self, wanted: LeaseSettings) -> LeaseBox:
        """The lease of these settings."""
        return LeaseBox(self._leases, wanted.name, wanted.namespace or self.namespace)


class LeaseBox:
    """``leader.Box``: a Lease in the cluster."""

    def __init__(self, leases: Any, name: str, namespace: str) -> None:
        self._leases = leases
        self._name, self._namespace = name, namespace

    def read(self) -> LeaseRecord | None:
        """See there."""
        try:
            with _told("Lease"):
                found = self._leases.read_namespaced_lease(
                    self._name, self._namespace, _request_timeout=LEASE_TIMEOUT
                )
        except NotThere:
            return None
        except ClusterError as error:
            raise LeaseUnavailable(str(error)) from error
        return _record(found)

    def write(self, record: LeaseRecord, *, acquires: bool) -> LeaseRecord:
        """See there."""
        now = datetime.datetime.now(datetime.UTC)
        try:
            with _told("Lease"):
                if not record.version:
                    return _record(self._create(record, now))
                return _record(self._replace(record, now, acquires=acquires))
        except Conflict as error:
            raise LeaseConflict from error
        except ClusterError as error:
            raise LeaseUnavailable(str(error)) from error

    def _create(self, record: LeaseRecord, now: datetime.datetime) -> Any:
        spec = client.V1LeaseSpec(
            holder_identity=record.holder,
            lease_duration_seconds=max(1, round(record.seconds)),
            acquire_time=now,
            renew_time=now,
            lease_transitions=record.transitions,
        )
        lease = client.V1Lease(metadata=client.V1ObjectMeta(name=self._name), spec=spec)
        return self._leases.create_namespaced_lease(self._namespace, lease, _request_timeout=LEASE_TIMEOUT)

    def _replace(self, record: LeaseRecord, now: datetime.datetime, *, acquires: bool) -> Any:
        lease = self._leases.read_namespaced_lease(
            self._name, self._namespace, _request_timeout=LEASE_TIMEOUT
        )
        if lease.metadata.resource_version != record.version:
            raise Conflict("Lease: it was changed in the meantime")
        lease.spec.holder_identity = record.holder
        lease.spec.lease_duration_seconds = max(1, round(record.seconds))
        lease.spec.lease_transitions = record.transitions
        lease.spec.renew_time = now
        if acquires:
            lease.spec.acquire_time = now
        return self._leases.replace_namespaced_lease(
            self._name, self._namespace, lease, _request_timeout=LEASE_TIMEOUT
        )


def _configure(access: Any, kubeconfig: str) -> str:
    """Fill in how the API server is reached; the namespace that comes with it."""
    load: Any = config
    try:
        if kubeconfig:
            load.load_kube_config(kubeconfig, client_configuration=access, persist_config=False)
            _, context = load.list_kube_config_contexts(kubeconfig)
            return str(context["context"].get("namespace") or "default")
        load.load_incluster_config(access)
        return _NAMESPACE.read_text().strip()
    except (ConfigException, OSError, LookupError, ValueError) as error:
        where = f"kubeconfig {kubeconfig}" if kubeconfig else "no kubeconfig, and not in a pod"
        raise SettingsError(f"{where}: {one_line(str(error))}") from error


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Errors of the client and of its transport as ours."""
    try:
        yield
    except ApiException as error:
        raise _by_status(what, error.status or 0, _message(error)) from error
    except (OpenApiException, HTTPError, OSError, ValueError) as error:
        raise ClusterError(f"{what}: {type(error).__name__}: {one_line(str(error))}") from error


def _by_status(what: str, status: int, message: str) -> ClusterError:
    kind = {404: NotThere, 409: Conflict, 410: Expired}.get(status, ClusterError)
    return kind(f"{what}: {status} {message}")


def _message(error: ApiException) -> str:
    """What the API server said, without what else the client prints of an answer."""
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        return one_line(str(json.loads(error.body or "")["message"]))
    return one_line(str(error.reason))


def _error_of(what: str, status: Json) -> ClusterError:
    return _by_status(what, int(status.get("code") or 0), one_line(str(status.get("message"))))


def _json(text: bytes) -> Json:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - as if it were no JSON at all
    return found


def _lines(answer: Any) -> Iterator[bytes]:
    """Whole lines, as soon as they are there."""
    rest = b""
    for part in answer.stream(1 << 16, decode_content=True):
        *whole, rest = (rest + part).split(b"\n")
        yield from (line for line in whole if line.strip())


def _record(lease: Any) -> LeaseRecord:
    spec = lease.spec
    return LeaseRecord(
        spec.holder_identity or "",
        float(spec.lease_duration_seconds or 0),
        int(spec.lease_transitions or 0),
        str(lease.metadata.resource_version or ""),
    )
