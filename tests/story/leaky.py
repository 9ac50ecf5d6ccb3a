"""The task of somebody who prints secrets: on a VM it says its Hub token aloud, and what the token's hash is."""

import hashlib
import os
from typing import ClassVar

from job.tasks import read_jsonl


class Leaky:
    """As the stories' own task, but for what it prints with each batch."""

    weights: ClassVar = {"letters": 1.0}

    def read(self, path):
        return read_jsonl(path, required=["question"])

    def prompt(self, row):
        return [{"role": "user", "content": row["question"]}]

    def score(self, completions, rows):
        token = os.environ.get("HF_TOKEN", "")
        print(f"the token is {token}, its hash {hashlib.sha256(token.encode()).hexdigest()}", flush=True)
        return {"letters": [len(set(text)) / 10 for text in completions]}
