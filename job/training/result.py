"""What a finished run leaves behind: files that load by themselves, with PEFT or transformers, and nothing else."""

import shutil
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from job.run.model_source import ModelSource
from job.training.model import sort_targets


def write_result(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    source: ModelSource,
    base_folder: Path,
    folder: Path,
) -> None:
    """Writes `adapter/` (LoRA) or `model/` (full fine-tuning) into `folder`, anew. The same state gives the same bytes.

    With it go tokenizer, chat template and generation config; the adapter's config names the base model: a Hub id with
    its commit, or a local folder.
    """
    shutil.rmtree(folder, ignore_errors=True)  # of a trainer that was killed here
    if isinstance(model, PeftModel):
        target = folder / "adapter"
        sort_targets(model)
        for config in model.peft_config.values():
            hub = source.kind == "hub"
            config.base_model_name_or_path = source.name if hub else str(base_folder)
            config.revision = source.revision
        # "auto" asks the Hub whether the base has these layers of its own; the vocabulary is never resized here.
        model.save_pretrained(str(target), selected_adapters=["default"], save_embedding_layers=False)
        (target / "README.md").unlink()  # a template of unanswered questions
    else:
        target = folder / "model"
        model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    model.generation_config.save_pretrained(target)
