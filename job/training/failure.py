"""What a failure of the trainer means for whoever started the run."""

import errno
import traceback

import torch

from job.advice import NO_COMPLETION_FIX, less_memory
from job.errors import BatonError, NeedsPerson
from job.settings import Settings

_CPU_OUT_OF_MEMORY = "can't allocate memory"  # torch 2.13's DefaultCPUAllocator raises a RuntimeError with it
_CANNOT_SAMPLE = "probability tensor contains either"  # torch.multinomial of logits that are not finite


def explain(error: BaseException, settings: Settings | None) -> BatonError:
    """The error to end with: itself, exit 3 for memory and disk, or exit 1 with the traceback for what is a bug."""
    if isinstance(error, BatonError):
        return error
    out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    if out_of_memory or (isinstance(error, RuntimeError) and _CPU_OUT_OF_MEMORY in str(error)):
        where = f"GPU {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "machine"
        return NeedsPerson(f"The {where} is out of memory.", fix=less_memory(settings))
    if isinstance(error, RuntimeError) and _CANNOT_SAMPLE in str(error):
        return NeedsPerson(
            "The model's output is not finite: no completion can be drawn.",
            fix=NO_COMPLETION_FIX,
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return NeedsPerson(
            f"The disk is full: {error.filename or 'the scratch folder'} cannot be written.",
            fix="Free some space, or set TMPDIR to a folder on another disk.",
        )
    return BatonError("".join(traceback.format_exception(error)).rstrip())
