"""escala.toml as frozen models; each section has its own module."""

from escala.config.address import Address, Endpoint, ListenAddress, UnixSocket
from escala.config.balance import Balance
from escala.config.config import PLATFORM, Config
from escala.config.gateway import GatewaySettings
from escala.config.load import FILE, find, load
from escala.config.policy import Policy, RateLimit
from escala.config.project import USER_STATE
from escala.config.replicas import ReplicasSettings, RolloutSettings
from escala.config.route import RouteSettings
from escala.config.service import ServiceSettings

__all__ = [
    "FILE",
    "PLATFORM",
    "USER_STATE",
    "Address",
    "Balance",
    "Config",
    "Endpoint",
    "GatewaySettings",
    "ListenAddress",
    "Policy",
    "RateLimit",
    "ReplicasSettings",
    "RolloutSettings",
    "RouteSettings",
    "ServiceSettings",
    "UnixSocket",
    "find",
    "load",
]
