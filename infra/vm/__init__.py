"""What boots on a VM: a startup script, systemd units and small scripts; no Python of ours outside the container.

The startup script is the metadata attribute that Google's guest agent runs; it takes the other files out of
attributes beside it. `boot_attributes()` is what every VM of ours is created with, whatever its role.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
STARTUP_SCRIPT = "startup.sh"
FILES = ("baton.service", "baton-logs.service", "bucket.sh", "ended.sh", "gpu-check.sh", "ship-logs.sh")


def boot_attributes() -> dict[str, str]:
    """The metadata attributes that carry the files: `startup-script`, and `baton-file-NAME` for the others, with `_`
    for the dots that no key may have.
    """
    files = {f"baton-file-{name.replace('.', '_')}": (FOLDER / name).read_text() for name in FILES}
    return {"startup-script": (FOLDER / STARTUP_SCRIPT).read_text(), **files}
