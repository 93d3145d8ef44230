"""One call of the CNI contract: bytes in, bytes out.

Owns the dispatch to the verbs and the one place where an exception becomes the JSON document that a caller
reads (CNI spec 1.1.0, "Error"). It must not know how a call arrives: from the executable's environment
and stdin, or through the agent's socket.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cni_plugin.cni import errors, netconf, params, strict_json, versions
from cni_plugin.cni.call import DELEGATED_BY, Call, Reply, VerbCall
from cni_plugin.datapath.names import names_of
from ipam.errors import IpamError
from ipam.quoting import one_line

if TYPE_CHECKING:
    from cni_plugin.node import Node

DETAILS_OF_A_BUG = (
    "This is a defect of azvnet. The traceback is in the log under the same call id; please report it."
)

LONGEST_MESSAGE = 2000
"""Characters of ``msg`` and of ``details``: the kubelet stores both with the pod."""


def handle(call: Call, node: Node) -> Reply:
    """Handle a call. Never raises an ``Exception``: whatever goes wrong is in the reply."""
    version = versions.CURRENT
    warnings: list[str] = []
    log = ("", "")
    try:
        parameters = params.parse_environment(call.environ)
        if parameters.verb == "VERSION" and not call.stdin.strip():
            return Reply(_to_bytes({"cniVersion": version, "supportedVersions": versions.SUPPORTED}))
        known = netconf.remembered(call.stdin)
        document = known[0] if known else netconf.decode(call.stdin)
        version = _version_for_errors(document)
        if parameters.verb == "VERSION":
            answered = versions.answered(document)
            return Reply(_to_bytes({"cniVersion": answered, "supportedVersions": versions.SUPPORTED}))
        verb_call = _checked(call, parameters, document, known[1] if known else None)
        version = verb_call.netconf.cni_version
        warnings, log = verb_call.warnings, (verb_call.netconf.log_level, verb_call.netconf.log_file)
        result = _run_verb(verb_call, node)
        return Reply(b"" if result is None else _to_bytes(result), 0, tuple(warnings), None, *log)
    except Exception as error:  # noqa: BLE001 - the caller must get a document, whatever happened
        return failure(error, version, call.call_id, warnings, log)


def _run_verb(verb_call: VerbCall, node: Node) -> dict[str, Any] | None:
    """Run the verb, loading its module alone; returns the document for stdout, if it has one."""
    if DELEGATED_BY in verb_call.call.environ:
        _refuse_loop(verb_call)
        return None
    match verb_call.parameters.verb:
        case "ADD":
            from cni_plugin.verbs.add import add

            return add(verb_call, node)
        case "DEL":
            from cni_plugin.verbs.delete import delete

            delete(verb_call, node)
        case "CHECK":
            from cni_plugin.verbs.check import check_attachment

            check_attachment(verb_call, node)
        case "GC":
            from cni_plugin.verbs.gc import collect_garbage

            collect_garbage(verb_call, node)
        case "STATUS":
            from cni_plugin.verbs.status import require_ready

            require_ready(verb_call, node)
    return None


def _refuse_loop(verb_call: VerbCall) -> None:
    """Refuse a call that this plugin caused. No ADD of that kind attached anything: DEL and GC do nothing."""
    error = errors.InvalidNetconf(
        f"ipam.type of network {verb_call.netconf.name} leads back to azvnet",
        "Name another IPAM plugin, or azvnet-ipam for the addresses of this node.",
    )
    if verb_call.parameters.verb not in ("DEL", "GC"):
        raise error
    verb_call.warnings.append(str(error))


def undo_add(call: Call, node: Node) -> None:
    """Undo a successful ADD whose result could not be delivered."""
    from cni_plugin.verbs.delete import delete_made_by

    delete_made_by(call, node)


def failure(
    error: BaseException,
    version: str,
    call_id: str = "",
    warnings: Sequence[str] = (),
    log: tuple[str, str] = ("", ""),
) -> Reply:
    """The reply for an error: an error object with the code of the error's class, and exit code 1."""
    if isinstance(error, IpamError):
        error = errors.PoolError(error)
    elif isinstance(error, OSError) and error.errno not in errors.DEFECTS:
        error = errors.of_system(error)
    if isinstance(error, errors.CniError):
        code, msg, details = error.code, str(error), error.details
    else:
        code, msg, details = 999, f"internal error: {type(error).__name__}: {error}", DETAILS_OF_A_BUG
    msg, details = one_line(msg, LONGEST_MESSAGE), one_line(details, LONGEST_MESSAGE)
    if call_id:
        details = f"{details} (call {call_id})".strip()
    document = {"cniVersion": version, "code": code, "msg": msg, "details": details}
    return Reply(_to_bytes(document), 1, tuple(warnings), error, *log)


def _version_for_errors(document: dict[str, Any]) -> str:
    """The version for an error object: that of the configuration, if it is supported."""
    asked = document.get("cniVersion")
    return asked if isinstance(asked, str) and asked in versions.SUPPORTED else versions.CURRENT


def _checked(
    call: Call, parameters: params.Parameters, document: dict[str, Any], known: netconf.NetConf | None
) -> VerbCall:
    known = known or netconf.remembered_but_for_result(document)
    conf = known or netconf.parse_netconf(document, lenient=parameters.verb in {"DEL", "GC"})
    if parameters.verb == "ADD" and not known:
        netconf.remember(call.stdin, document, conf)
    versions.require_verb(parameters.verb, conf.cni_version)
    warnings: tuple[str, ...] = ()
    if parameters.verb in {"ADD", "STATUS"}:
        warnings = netconf.require_supported(conf, as_ipam=call.as_ipam)
    args = parameters.args
    names = names_of(parameters.attachment, args.get("K8S_POD_NAMESPACE", ""), args.get("K8S_POD_NAME", ""))
    for_caller = list(warnings) if parameters.verb == "ADD" else []
    return VerbCall(call, parameters, conf, names, for_caller)


def _to_bytes(document: object) -> bytes:
    return strict_json.dumps(document) + b"\n"
