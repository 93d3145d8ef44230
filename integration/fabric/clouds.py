"""The public names of Azure's clouds, and the addresses that the fabric gives them. Values only.

Source: azure-mgmt-core's endpoints and azure-identity's authority hosts.
"""

from __future__ import annotations

from dataclasses import dataclass

from integration.fabric.ruleset import PUBLIC

ARM_ADDRESS = PUBLIC[10]
LOGIN_ADDRESS = PUBLIC[11]


@dataclass(frozen=True, slots=True)
class Cloud:
    """One of Azure's clouds."""

    environment: str
    """As IMDS calls it."""
    arm_host: str
    login_host: str
    audiences: tuple[str, ...]
    """Resources that a token for ARM may be made for, without the slash at the end."""


CLOUDS = (
    Cloud(
        "AzurePublicCloud",
        "management.azure.com",
        "login.microsoftonline.com",
        ("https://management.azure.com", "https://management.core.windows.net"),
    ),
    Cloud(
        "AzureChinaCloud",
        "management.chinacloudapi.cn",
        "login.chinacloudapi.cn",
        ("https://management.chinacloudapi.cn", "https://management.core.chinacloudapi.cn"),
    ),
    Cloud(
        "AzureUSGovernmentCloud",
        "management.usgovcloudapi.net",
        "login.microsoftonline.us",
        ("https://management.usgovcloudapi.net", "https://management.core.usgovcloudapi.net"),
    ),
)


def cloud(environment: str) -> Cloud:
    """The cloud of that ``azEnvironment``. Raises ValueError."""
    for each in CLOUDS:
        if each.environment.casefold() == environment.casefold():
            return each
    known = ", ".join(each.environment for each in CLOUDS)
    raise ValueError(f"there is no Azure environment {environment}; known are {known}")


def endpoints(environment: str) -> dict[str, str]:
    """Host names of a cloud's endpoints, and the addresses they have in the fabric."""
    own = cloud(environment)
    return {own.arm_host: str(ARM_ADDRESS), own.login_host: str(LOGIN_ADDRESS)}
