"""Secret Manager, as far as gcloud makes secrets and attempts read them: versions by number, and who accesses them."""
