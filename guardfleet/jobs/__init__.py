"""Use cases: a job is submitted, taken in, explained. SQL belongs in `guardfleet/store`, faces in `api`, `producer` and `cli`."""
