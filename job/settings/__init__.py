"""The settings of a run: one tree (`tree`) from recipe, `.env`, environment and `--set` (`load`)."""

from job.settings.environment import Environment, Secrets, load_environment, load_secrets
from job.settings.identity import fingerprint, from_plain, identity_differences, to_plain
from job.settings.keys import Key, all_keys, flatten
from job.settings.load import Resolved, load_settings
from job.settings.tree import Settings

__all__ = [
    "Environment",
    "Key",
    "Resolved",
    "Secrets",
    "Settings",
    "all_keys",
    "fingerprint",
    "flatten",
    "from_plain",
    "identity_differences",
    "load_environment",
    "load_secrets",
    "load_settings",
    "to_plain",
]
