"""The dispatcher: publishes what is ready, repairs what was lost. Judging and sending do not belong here."""
