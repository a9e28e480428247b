"""The dispatcher: publishes ready work, repairs what was lost. Judging and sending do not belong here."""
