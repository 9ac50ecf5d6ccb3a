"""A project on Google Cloud, made ready for runs and taken back: what there has to be, looked up, made by gcloud."""
