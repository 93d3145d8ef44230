"""The verbs: one page each, as an engineer would type the steps.

A verb gets a checked call and the node, and returns the document for stdout, or None. It must not know
how bytes arrive or leave.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cni_plugin.cni.call import Call
from cni_plugin.cni.netconf import NetConf
from cni_plugin.cni.params import Parameters

if TYPE_CHECKING:
    from cni_plugin.node import Node

MODULES = {"ADD": "add", "CHECK": "check", "DEL": "delete", "GC": "gc", "STATUS": "status"}

Verb = Callable[["VerbCall", "Node"], "dict[str, Any] | None"]


@dataclass(frozen=True, slots=True)
class VerbCall:
    """One call, checked and parsed."""

    call: Call
    parameters: Parameters
    netconf: NetConf
    said: list[str] = field(default_factory=list)
    """Warnings for the caller's stderr and the log."""


def carry_out_verb(verb_call: VerbCall, node: Node) -> dict[str, Any] | None:
    """Load the verb's module and carry the call out."""
    module = importlib.import_module(f"cni_plugin.verbs.{MODULES[verb_call.parameters.verb]}")
    carry_out: Verb = module.carry_out
    return carry_out(verb_call, node)
