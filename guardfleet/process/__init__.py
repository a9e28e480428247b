"""What any process does about itself and its children: start, readiness, supervision, end. Knows no job."""
