"""Use cases: submitting, taking in and explaining a job. SQL belongs in `guardfleet/store`, faces in `api`, `producer`, `cli`."""
