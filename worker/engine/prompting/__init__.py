"""From contents to token ids, and where long texts are cut. No tensors here."""
